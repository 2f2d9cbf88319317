"""What `analyze` found, as tidy rows, and its forms: JSON, CSV, pandas, Markdown, LaTeX, HTML."""

from topo.report.coverage import left_out_line
from topo.report.page import MOST_GRAPHS
from topo.report.report import (
    COLUMNS,
    NULL_COLUMNS,
    OF_LAYERS,
    SCHEMA,
    Number,
    Report,
    Row,
    Value,
    few,
    note_lines,
    reports_from_json,
    reports_to_csv,
    reports_to_html,
    reports_to_json,
)
from topo.report.reports import Reports, read_reports
from topo.report.summary import Summary
from topo.report.tidy import holds_reports, reports_from_table

__all__ = [
    "COLUMNS",
    "MOST_GRAPHS",
    "NULL_COLUMNS",
    "OF_LAYERS",
    "SCHEMA",
    "Number",
    "Report",
    "Reports",
    "Row",
    "Summary",
    "Value",
    "few",
    "holds_reports",
    "left_out_line",
    "note_lines",
    "read_reports",
    "reports_from_json",
    "reports_from_table",
    "reports_to_csv",
    "reports_to_html",
    "reports_to_json",
]
