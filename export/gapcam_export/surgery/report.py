"""What surgery did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gapcam_export.surgery.cost import NetworkCost

if TYPE_CHECKING:
    from gapcam_export.surgery.affine_fit import Agreement
    from gapcam_export.surgery.gap_network import GapNetwork

Initial = Literal["kept", "fitted", "random"]


@dataclass(frozen=True)
class SurgeryReport:
    """What surgery did to a network.

    Attributes:
        network: what came out, in evaluation mode. Its backbone shares its weights with the network that went in.
        path: the file that was written, or None.
        file_bytes: size of that file, or 0.
        source: what the network was made from.
        preset: the recipe, or "".
        cut_after: the layer that it was cut after.
        removed: what went, layer by layer, and what a dilation or another size changed.
        added: what came, layer by layer.
        initial: where the linear layer's values are from: "kept" from the old head, "fitted" to the old logits, or
            "random".
        before: what the old network costs.
        after: what the new network costs.
        agreement: of the new logits with the old ones, or None where nothing is to be compared.
        agreement_on: the images that it was measured on, or "".
        notes: what the user should know.
        seconds: how long it took.
    """

    network: GapNetwork = field(repr=False, compare=False)
    path: Path | None
    file_bytes: int
    source: str
    preset: str
    cut_after: str
    removed: tuple[str, ...]
    added: tuple[str, ...]
    initial: Initial
    before: NetworkCost
    after: NetworkCost
    agreement: Agreement | None
    agreement_on: str
    notes: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The report without the network, as plain values for JSON."""
        plain = {name: value for name, value in vars(self).items() if name != "network"}
        plain["path"] = None if self.path is None else str(self.path)
        for name in ("before", "after", "agreement"):
            plain[name] = None if plain[name] is None else asdict(plain[name])
        return plain
