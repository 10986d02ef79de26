"""Windows that slide over images: their size, strides, dilation and padding, checked once for all layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nnbackend.errors import InvalidInputError, shown
from nnbackend.support.checks import count, positive_integer

__all__ = ["Pair", "Placement", "Window", "image_shape", "pair", "short", "two_sides"]

#: Of rows and of columns.
Pair = tuple[int, int]


@dataclass(frozen=True)
class Placement:
    """Where the windows of a layer lie on images of one size.

    Attributes
    ----------
    height, width : int
        Of the output.
    top, left : int
        Padding before the first row and column.
    """

    height: int
    width: int
    top: int
    left: int


@dataclass(frozen=True)
class Window:
    """A window, and how it slides.

    Attributes
    ----------
    size, strides, dilation : (int, int)
        Of rows and of columns.
    padding : {"valid", "same"} or ((int, int), (int, int))
        None; as TensorFlow's "same", with the extra row or column at the end; or (top, bottom), (left, right).
    """

    size: Pair
    strides: Pair
    dilation: Pair
    padding: str | tuple[Pair, Pair]

    @classmethod
    def of(cls, name: str, size: Any, strides: Any, dilation: Any = 1, padding: Any = "valid") -> Window:
        """Check the arguments of a layer; `name` is that of its size.

        Raises
        ------
        InvalidInputError
            A number is below 1, or the padding is unknown, or negative.
        """
        chosen = pair(name, size)
        return cls(
            chosen,
            chosen if strides is None else pair("strides", strides),
            pair("dilation_rate", dilation),
            _padding(padding),
        )

    def place(
        self,
        layer: str,
        input_shape: tuple[int, ...],
        extents: tuple[str, str] = ("images of height", "images of width"),
    ) -> Placement:
        """Where it lies on images of this shape; messages call their axes `extents`.

        Raises
        ------
        InvalidInputError
            Not images, or smaller than the window.
        """
        height, width, _ = image_shape(layer, input_shape)
        rows = self._along(layer, 0, height, extents)
        columns = self._along(layer, 1, width, extents)
        return Placement(rows[0], columns[0], rows[1], columns[1])

    def _along(self, layer: str, axis: int, extent: int, extents: tuple[str, str]) -> Pair:
        """Number of windows along an axis, and the padding before the first."""
        stride, covered = self.strides[axis], (self.size[axis] - 1) * self.dilation[axis] + 1
        if self.padding == "same":
            windows = -(-extent // stride)
            return windows, max((windows - 1) * stride + covered - extent, 0) // 2
        before, after = (0, 0) if isinstance(self.padding, str) else self.padding[axis]
        if before + extent + after < covered:
            raise InvalidInputError(
                f"{layer}: a window of {covered} does not fit into {extents[axis]} {extent}"
                f"{f' with padding {before} + {after}' if before or after else ''}; "
                "make it smaller, or choose padding='same'"
            )
        return (before + extent + after - covered) // stride + 1, before

    def check_pool(self) -> None:
        """Check that padding is smaller than the window, so that each window contains a part of the image.

        Raises
        ------
        InvalidInputError
        """
        if not isinstance(self.padding, str):
            for extent, sides in zip(self.size, self.padding, strict=True):
                if max(sides) >= extent:
                    raise InvalidInputError(
                        f"padding of a pool must be smaller than its window, received padding {max(sides)} for a "
                        f"window of {extent}"
                    )

    def text(self, strides: Pair) -> str:
        """Its size as an argument, and strides and padding unless they are these strides and "valid"."""
        parts = [short(self.size)]
        if self.strides != strides:
            parts.append(f"strides={short(self.strides)}")
        if self.padding != "valid":
            parts.append(f"padding={short(self.padding)}")
        if self.dilation != (1, 1):
            parts.append(f"dilation_rate={short(self.dilation)}")
        return ", ".join(parts)

    def config(self) -> dict[str, Any]:
        """Strides and padding as plain JSON."""
        padding = self.padding if isinstance(self.padding, str) else [list(each) for each in self.padding]
        return {"strides": list(self.strides), "padding": padding}


def pair(what: str, value: Any) -> Pair:
    """One number for rows and columns, or two."""
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise InvalidInputError(f"{what} must be a whole number, or two of them, received {shown(value)}")
        return positive_integer(what, value[0]), positive_integer(what, value[1])
    return (positive_integer(what, value),) * 2


def short(value: Any) -> str:
    """As an argument of a layer: one number for two equal ones."""
    if isinstance(value, tuple) and isinstance(value[0], tuple):
        return short(tuple(sides[0] for sides in value)) if all(a == b for a, b in value) else repr(value)
    return repr(value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value)


def _padding(padding: Any) -> str | tuple[Pair, Pair]:
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise InvalidInputError(f"padding must be 'valid', 'same' or numbers, received {shown(padding)}")
        return padding
    return two_sides("padding", padding)


def two_sides(what: str, padding: Any) -> tuple[Pair, Pair]:
    """``((top, bottom), (left, right))`` from that, from (rows, columns), or from one number."""
    sides = padding if isinstance(padding, tuple | list) else (padding, padding)
    if len(sides) != 2:
        raise InvalidInputError(
            f"{what} must be a number, (rows, columns) or ((top, bottom), (left, right)), received {shown(padding)}"
        )
    top, left = (side if isinstance(side, tuple | list) and len(side) == 2 else (side, side) for side in sides)
    return (count(what, top[0]), count(what, top[1])), (count(what, left[0]), count(what, left[1]))


def image_shape(layer: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels of a sample.

    Raises
    ------
    InvalidInputError
        It is no image with channels.
    """
    if len(input_shape) == 2:
        raise InvalidInputError(
            f"{layer} takes images of shape (height, width, channels), received {input_shape}; for grey images, "
            f"pass x[..., None] and input_shape={(*input_shape, 1)}; for sequences, put Reshape({(1, *input_shape)}) "
            "before it"
        )
    if len(input_shape) != 3:
        raise InvalidInputError(
            f"{layer} takes images of shape (height, width, channels), received {input_shape}; put "
            "Reshape((height, width, channels)) before it"
        )
    height, width, channels = input_shape
    return height, width, channels
