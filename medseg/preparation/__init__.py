"""From a data set to prepared cases on disk: fingerprint -> plan -> memory-mapped store, and the way back."""

from medseg.preparation.fingerprint import Fingerprint
from medseg.preparation.grid import GridMap, labels_to_network_grid, to_network_grid
from medseg.preparation.normalize import Scale, normalize, scales_for
from medseg.preparation.plan import ChannelPlan, Plan, load_plan, save_plan
from medseg.preparation.planning import make_plan
from medseg.preparation.prepare import Preparation, prepare
from medseg.preparation.split import Split, split_cases
from medseg.preparation.store import PreparedCase, open_case

__all__ = [
    "ChannelPlan",
    "Fingerprint",
    "GridMap",
    "Plan",
    "Preparation",
    "PreparedCase",
    "Scale",
    "Split",
    "labels_to_network_grid",
    "load_plan",
    "make_plan",
    "normalize",
    "open_case",
    "prepare",
    "save_plan",
    "scales_for",
    "split_cases",
    "to_network_grid",
]
