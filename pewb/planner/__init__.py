"""The planner: what a recipe would need, found out before anything is downloaded or trained."""
