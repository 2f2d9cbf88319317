"""What can go wrong, in one small family. Every message says which thing, what it holds and what it should hold."""


class TopoError(Exception):
    """Bad input: the message is one clear line for the user."""


class MaskError(TopoError):
    """A mask that is none: values other than 0 and 1, a wrong shape, no parameter."""


class MaskWarning(UserWarning):
    """Masks that are written or trained although a layer of them keeps nothing."""


class FormatError(TopoError):
    """A file that no reader understands, or that must not be read."""


class WiringError(TopoError):
    """Layers that do not fit each other, or masks that do not fit the model."""


class NotFound(TopoError):
    """A search that ended without masks, which is not a proof that there are none."""


class TraceError(TopoError):
    """A model whose wiring cannot be found."""


class TraceWarning(UserWarning):
    """The wiring was found by a conservative assumption, named in the message."""


class PluginWarning(UserWarning):
    """Another package offers a metric, a format or the like that cannot be loaded."""


class DataError(TopoError):
    """Images or labels that are none, or a folder that holds no data set."""


class TrainingError(TopoError):
    """A training run that cannot start, go on or be resumed."""


class ShrinkError(TopoError):
    """A model that cannot be made smaller: nothing of it is alive, or parts of it cannot be followed."""
