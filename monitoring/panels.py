"""The look of our dashboards: figures, graphs, rows and what all boards share, as Grafana's own SDK builds them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model

PER_MINUTE = "suffix:/min"
SECONDS = "s"
COUNT = "none"
TAG = "access-mail"

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "text"
WIDTH = 24
FIGURE_HEIGHT, GRAPH_HEIGHT = 4, 8
ROOM_FOR_A_TABLE = 8


@dataclass(frozen=True)
class Query:
    """PromQL, and how its series are called: `{{label}}` stands for a label's value."""

    expr: str
    legend: str = "__auto"


Steps = Sequence[tuple[float | None, str]]
"""Colours from these values on; the first value is None."""

CALM: Steps = ((None, BLUE),)


def bad_above(warning: float, bad: float) -> Steps:
    """Green, then yellow, then red."""
    return (None, GREEN), (warning, YELLOW), (bad, RED)


def bad_below(good: float) -> Steps:
    """Red, and green from this value on."""
    return (None, RED), (good, GREEN)


def per_minute(counter: str, where: str = "", by: str = "") -> str:
    """How fast a counter grows: requests come a few times an hour, so that a rate per second would say nothing."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"60 * {grouped} (rate({counter}{_braces(where)}[$__rate_interval]))"


def in_this_time(counter: str, where: str = "", by: str = "") -> str:
    """How much a counter grew in the time that the board shows."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (increase({counter}{_braces(where)}[$__range]))"


def worst(number: int, expr: str) -> str:
    """The few greatest series, where most of many are 0."""
    return f"topk({number}, {expr})"


def quantile(of: float, histogram: str, window: str, where: str = "") -> str:
    """A quantile over all instances; NaN where nothing was observed."""
    return f"histogram_quantile({of}, sum by (le) (rate({histogram}_bucket{_braces(where)}[{window}])))"


def age(timestamp: str) -> str:
    """How old what a timestamp names was at its scrape, as far as any copy knows."""
    return f"clamp_min(max(timestamp({timestamp}) - {timestamp}), 0)"


def since(timestamp: str) -> str:
    """How long ago it happened last, in whichever copy. A copy that has just started says 1970: see `NOT_YET`."""
    return f"time() - max({timestamp})"


def _braces(where: str) -> str:
    return f"{{{where}}}" if where else ""


NOT_YET = model.RangeMap(
    model.DashboardRangeMapOptions(
        from_val=1e9, to=1e11, result=model.ValueMappingResult(text="not since its start", color=GREY)
    )
)
NOTHING = model.SpecialValueMap(
    model.DashboardSpecialValueMapOptions(
        match=model.SpecialValueMatch.NULL_AND_NAN, result=model.ValueMappingResult(text="no mail", color=GREY)
    )
)


def words(**texts: tuple[str, str]) -> model.ValueMap:
    """A figure's words: `_0=("text", colour)` for the value 0."""
    return model.ValueMap(
        {name.removeprefix("_"): model.ValueMappingResult(text, colour) for name, (text, colour) in texts.items()}
    )


Panel = stat.Panel | timeseries.Panel


def figure(  # as a panel is given in one call
    title: str,
    about: str,
    *queries: Query,
    width: int,
    unit: str = COUNT,
    steps: Steps = CALM,
    mappings: Sequence[model.ValueMapping] = (),
    decimals: int | None = 0,
    height: int = FIGURE_HEIGHT,
) -> stat.Panel:
    """One or a few numbers as they are now."""
    panel = (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(height)
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .text_mode(kinds.BigValueTextMode.VALUE_AND_NAME if len(queries) > 1 else kinds.BigValueTextMode.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(steps))
        .mappings(list(mappings))
        .no_value("not known")
    )
    if decimals is not None:
        panel.decimals(decimals)
    for query in queries:
        panel.with_target(_target(query).instant())
    return panel


def graph(
    title: str,
    about: str,
    *queries: Query,
    width: int,
    unit: str = PER_MINUTE,
    steps: Steps | None = None,
    least: float | None = 0,
) -> timeseries.Panel:
    """Lines over time; `steps`: from which values on it is bad, drawn as dashed lines."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(GRAPH_HEIGHT)
        .legend(_legend(width))
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
        .draw_style(kinds.GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(10)
        .show_points(kinds.VisibilityMode.NEVER)
        .no_value("not known")
    )
    if least is not None:
        panel.min(least)
    if steps is not None:
        panel.thresholds(_thresholds(steps))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED))
    for query in queries:
        panel.with_target(_target(query))
    return panel


def _legend(width: int) -> common.VizLegendOptions:
    """A table where there is room for one."""
    legend = common.VizLegendOptions().placement(kinds.LegendPlacement.BOTTOM).show_legend(True)
    if width < ROOM_FOR_A_TABLE:
        return legend.display_mode(kinds.LegendDisplayMode.LIST)
    table = legend.display_mode(kinds.LegendDisplayMode.TABLE)
    return table.calcs(["lastNotNull", "max"]).sort_by("Max").sort_desc(True)


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    listed = [model.Threshold(value, colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(listed)


def _target(query: Query) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expr).legend_format(query.legend).datasource(SOURCE)


@dataclass(frozen=True)
class Row:
    """Panels under one heading, laid out from left to right, line by line."""

    title: str
    panels: Sequence[Panel]


def board(
    uid: str,
    title: str,
    about: str,
    rows: Sequence[Row],
    variables: Sequence[dashboard.QueryVariable] = (),
) -> str:
    """A dashboard as the JSON that Grafana imports."""
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags([TAG])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .editable()
        .link(
            dashboard.DashboardLink("Access Mail")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
            .include_vars(False)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in variables:
        built.with_variable(variable)
    for row in rows:
        built.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            built.with_panel(panel)
    made = built.build()
    for number, one in enumerate(made.panels or [], start=1):
        one.id_val = number
    return json.dumps(made, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
