"""Is this installation sound, and does the planner tell the truth on this device?"""

from pewb.doctor.examination import Finding, examine
from pewb.doctor.measured import Measurements, measure

__all__ = ["Finding", "Measurements", "examine", "measure"]
