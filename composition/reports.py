"""Reports about an exported file that its row carries along: readiness for devices, time of every operator."""

from matplotlib.figure import Figure

from deploy.artifact import Artifact
from deploy.gate import Check
from deploy.layers import tabulate_times, time_operators
from tracking import plots


def check_devices(artifact: Artifact) -> tuple[list[Check], dict[str, str]]:
    """Tell what devices other than this machine would make of a file.

    Returns
    -------
    list of Check
        Without limits: operators that are left in float, share of the MACs that the device's accelerator takes.
    dict of str to str
        Tables, by file name.
    """
    if artifact.runtime != "litert" or artifact.precision != "int8":
        return [], {}
    from deploy.edgetpu import check_edgetpu
    from deploy.tflite_file import read_graph
    from deploy.tflite_macs import find_float

    graph, report = read_graph(artifact.path), check_edgetpu(artifact.path)
    names = [f"{operator.kind} ({operator.layer})" for operator in find_float(graph)]
    reason = (
        f"{len(names)} of {len(graph.operators)} operators compute in float{': ' if names else ''}{', '.join(names)}"
    )
    checks = [
        Check("float_operators", "INFO", float(len(names)), None, reason),
        Check("edgetpu", "INFO", report.macs_share, None, report.summary),
    ]
    return checks, {"edgetpu.md": report.to_markdown()}


def report_layers(artifact: Artifact, title: str) -> tuple[dict[str, str], dict[str, Figure]]:
    """Time every operator of a file: a table and a plot, by file name."""
    times = time_operators(artifact)
    figure = plots.layers_figure(
        [f"{item.operator} {item.layer}" for item in times],
        [item.time_ms for item in times],
        [item.weight_bytes + item.output_bytes for item in times],
        title,
    )
    return {"layers.md": tabulate_times(times, artifact.runtime)}, {"layers.png": figure}
