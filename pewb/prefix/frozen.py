"""Which part of an applied model is constant, and the model without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from pewb.anatomy import Anatomy
from pewb.batching import STATES, Inputs
from pewb.measurement.parameters import head_parameters

_PROBE_TOKENS = 4


class _ReachedError(Exception):
    """Ends a forward where the prefix does."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


class NotReachedError(Exception):
    """A module is not called where a model of its kind calls it."""


class _Embeddings(NamedTuple):
    """The module that a model's embeddings are a child of, their name there, and what they hand on."""

    parent: nn.Module
    name: str
    width: int
    dtype: torch.dtype


@dataclass
class Prefix:
    """The embeddings and the lowest layers of a model, in which nothing is trained and no dropout is left.

    Attributes:
        num_layers: how many of the stack's layers belong to it; all of them where only the head is trained.
        hidden_size: of the states that it hands on.
        dtype: of those states.
        is_one_row: whether they are the first token's alone, because the head reads no other.
        frozen: what its states depend on, by name.
        head: the module that reads what the last layer hands on.
    """

    model: nn.Module
    stack: nn.ModuleList
    num_layers: int
    hidden_size: int
    dtype: torch.dtype
    is_one_row: bool
    frozen: dict[str, torch.Tensor]
    head: nn.Module
    _num_outputs: int
    _embeddings: _Embeddings | None
    """None if they are more than one tensor."""
    _undo: list[Callable[[], None]] = field(default_factory=list)

    @property
    def row_bytes(self) -> int:
        """What the state of one token takes."""
        return int(self.hidden_size * self.dtype.itemsize)

    def states(self, inputs: Inputs) -> torch.Tensor:
        """Return what the prefix makes of a batch, (batch, tokens or 1, hidden); nothing above it is computed.

        Call it before the prefix is cut out, in evaluation mode, without gradients and under autocast.
        """
        return _first(_output_at(self.model, self.stack[self.num_layers - 1], inputs))

    def read_by_head(self, inputs: Inputs) -> torch.Tensor:
        """Return what the head is given of a batch, (batch, tokens or 1, hidden) or (batch, hidden), cut out or not.

        Raises:
            NotReachedError: the head is not called.
        """

        def stop(_module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            raise _ReachedError(next(iter((*args, *options.values()))))

        handle = self.head.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            return _first(_reached(self.model, inputs))
        finally:
            handle.remove()

    def cut(self) -> None:
        """Take the prefix out of the computation: from now on the model is called with its states, as `prefix_states`.

        The layers stay in the model, beneath what stands in for them, so that nothing that it holds is lost from sight.
        """
        given = _Given(self.stack[self.num_layers - 1], self._num_outputs)

        def take(_model: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            given.states = inputs[STATES]
            return args, {name: one for name, one in inputs.items() if name != STATES}

        for index in range(self.num_layers):
            layer = self.stack[index]
            self.stack[index] = given if index == self.num_layers - 1 else _Passed(layer, self._num_outputs)
            self._undo.append(partial(self.stack.__setitem__, index, layer))
        if self._embeddings:
            parent, name, width, dtype = self._embeddings
            embeddings = getattr(parent, name)
            setattr(parent, name, _Blank(embeddings, width, dtype))
            self._undo.append(lambda: setattr(parent, name, embeddings))
        self._undo.append(self.model.register_forward_pre_hook(take, with_kwargs=True).remove)

    def restore(self) -> None:
        """Put the prefix back, if it was cut out."""
        while self._undo:
            self._undo.pop()()


def find_prefix(
    model: nn.Module, anatomy: Anatomy, device: torch.device, autocast: Callable[[], AbstractContextManager[Any]]
) -> Prefix | str | None:
    """Return the frozen prefix of an applied `model`, and silence its dropout for good.

    None if the lowest layer is trained, or something below it; the reason in words if there is a prefix that can't be told
    from the rest. `autocast` gives the context in which the model computes.
    """
    found = next(
        ((name, one) for name, one in model.named_modules() if f".{name}".endswith(f".{anatomy.top_stack.path}")), None
    )
    assert found is not None
    path, stack = found
    num_layers = _num_frozen(model, anatomy, path)
    if num_layers == 0:
        return None
    if anatomy.is_encoder_decoder:
        return "the decoder's frozen layers read the encoder besides"
    if len(anatomy.layer_modules(1)) > 1 or not isinstance(stack, nn.ModuleList):
        return "its layers are kept in two lists"
    tokens = torch.ones(1, _PROBE_TOKENS, dtype=torch.long, device=device)
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast():
            if _num_calls(model, stack, inputs) != [1] * len(stack):
                return "its layers are not computed once each"
            with _finished(model) as below:
                output = _output_at(model, stack[num_layers - 1], inputs)
    finally:
        model.train(was_training)
    states = _first(output)
    if not isinstance(states, torch.Tensor) or any(one is not None for one in _rest(output)):
        return "its layers hand on more than hidden states"
    for module in below:
        _keep_in_evaluation(module)
    if any(type(one).__name__ == "Linear8bitLt" for one in below):
        return "layers in int8 are rounded by the largest numbers of a batch, so that an example's states depend on the others"
    if getattr(model.config, "layerdrop", 0) or not _is_constant(model, stack[num_layers - 1], inputs, autocast):
        return "something random stands between its layers"
    upper = tuple(f"{path}.{index}." for index in range(num_layers, len(stack)))
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    of_head = tuple(f".{name}." for name in (*anatomy.head, *anatomy.output))
    frozen = {
        name: one
        for name, one in model.state_dict().items()
        if isinstance(one, torch.Tensor)
        and not name.startswith(upper)
        and name not in trained
        and not any(part in f".{name}" for part in of_head)
    }
    head = next((one for name, one in model.named_modules() if f".{name}.".endswith(of_head)), None)
    if head is None:
        return "its head can't be told"
    return Prefix(
        model=model,
        stack=stack,
        num_layers=num_layers,
        hidden_size=states.shape[-1],
        dtype=states.dtype,
        is_one_row=states.shape[1] == 1,
        frozen=frozen,
        head=head,
        _num_outputs=1 + len(_rest(output)) if isinstance(output, tuple) else 0,
        _embeddings=_embeddings_in(model, below, stack),
    )


def _num_frozen(model: nn.Module, anatomy: Anatomy, path: str) -> int:
    """Return the number of the stack's layers below the lowest that is trained; 0 if anything else than the head is."""
    head = {id(one) for one in head_parameters(model, anatomy)}
    lowest = anatomy.top_stack.num_layers
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or id(parameter) in head:
            continue
        if not name.startswith(f"{path}."):
            return 0
        lowest = min(lowest, int(name.removeprefix(f"{path}.").partition(".")[0]))
    return lowest


def _output_at(model: nn.Module, layer: nn.Module, inputs: Mapping[str, Any]) -> Any:
    """Return what `layer` makes of the inputs, and compute nothing after it."""

    def stop(_module: nn.Module, _inputs: Any, output: Any) -> None:
        raise _ReachedError(output)

    handle = layer.register_forward_hook(stop)
    try:
        return _reached(model, inputs)
    finally:
        handle.remove()


def _reached(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    """Return what a hook ends the model's forward with."""
    try:
        model(**inputs)
    except _ReachedError as reached:
        return reached.output
    raise NotReachedError("the model does not call its own module")


def _num_calls(model: nn.Module, stack: nn.ModuleList, inputs: Mapping[str, Any]) -> list[int]:
    """Return how often the model calls each layer of the stack."""
    counts = [0] * len(stack)

    def count(index: int, *_: Any) -> None:
        counts[index] += 1

    handles = [layer.register_forward_pre_hook(partial(count, index)) for index, layer in enumerate(stack)]
    try:
        model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return counts


def _is_constant(
    model: nn.Module,
    layer: nn.Module,
    inputs: Mapping[str, Any],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> bool:
    """Return whether `layer` hands on the same twice while the model is in training; taken for granted of virtual tensors."""
    was_training = model.training
    model.train()
    with torch.no_grad(), autocast():
        once, again = (_first(_output_at(model, layer, inputs)) for _ in range(2))
    model.train(was_training)
    return bool(once.is_meta) or torch.equal(once, again)


@contextmanager
def _finished(model: nn.Module) -> Iterator[dict[nn.Module, Any]]:
    """Give the modules that were finished inside, in their order, each with what it handed on."""
    seen: dict[nn.Module, Any] = {}

    def finish(one: nn.Module, _inputs: Any, output: Any) -> None:
        seen.setdefault(one, output)

    handles = [module.register_forward_hook(finish) for module in model.modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _embeddings_in(model: nn.Module, below: Mapping[nn.Module, Any], stack: nn.ModuleList) -> _Embeddings | None:
    """Return where the module is that makes the first layer's input of token numbers alone, as far as can be told."""
    embedding = model.get_input_embeddings()
    holding = [one for one in below if any(part is embedding for part in one.modules())]
    if not holding or any(part is one for one in holding for part in stack):
        return None
    outermost = holding[-1]  # a module is finished after its parts
    output = below[outermost]
    if not isinstance(output, torch.Tensor):
        return None
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is outermost:
                return _Embeddings(parent, name, output.shape[-1], output.dtype)
    return None


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _rest(output: Any) -> tuple[Any, ...]:
    return output[1:] if isinstance(output, tuple) else ()


def _keep_in_evaluation(module: nn.Module) -> None:
    """Let `train` pass a module by: below the lowest trained layer there is no dropout."""
    module.training = False
    module.train = lambda mode=True: module


class _StandIn(nn.Module):
    """Takes a layer's place; what is asked of the layer besides its forward, the layer answers."""

    def __init__(self, frozen: nn.Module, num_outputs: int) -> None:
        super().__init__()
        self.frozen = frozen
        self._num_outputs = num_outputs

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("frozen"), name)

    def _as_output(self, states: torch.Tensor) -> Any:
        return (states, *[None] * (self._num_outputs - 1)) if self._num_outputs else states


class _Passed(_StandIn):
    def forward(self, hidden_states: torch.Tensor, *_args: Any, **_options: Any) -> Any:
        return self._as_output(hidden_states)


class _Given(_StandIn):
    states: torch.Tensor

    def forward(self, *_args: Any, **_options: Any) -> Any:
        states = self.states
        del self.states
        return self._as_output(states)


class _Blank(_StandIn):
    """Stands in for embeddings whose numbers nobody reads: zeros of their shape, which take no memory."""

    def __init__(self, frozen: nn.Module, width: int, dtype: torch.dtype) -> None:
        super().__init__(frozen, 0)
        self._width, self._dtype = width, dtype

    def forward(self, input_ids: torch.Tensor, *_args: Any, **_options: Any) -> torch.Tensor:
        zero = torch.zeros((), dtype=self._dtype, device=input_ids.device)
        return zero.expand(*input_ids.shape, self._width)
