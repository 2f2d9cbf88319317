"""What a table of masks and accuracies says: rank correlations within cells, intervals, prediction out of sample."""

from topo.evidence.bootstrap import Interval, cluster_bootstrap
from topo.evidence.prediction import left_out
from topo.evidence.ranks import controlled, ranked, spearman
from topo.evidence.table import Table, read_table, table_of

__all__ = [
    "Interval",
    "Table",
    "cluster_bootstrap",
    "controlled",
    "left_out",
    "ranked",
    "read_table",
    "spearman",
    "table_of",
]
