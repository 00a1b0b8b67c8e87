"""Under which terms the parts of a bundle may be passed on."""

# Name of the data set up to its first underscore, to title, licence and DOI, as on its page at PhysioNet.
DATA = {
    "ptbxl": ("PTB-XL", "Creative Commons Attribution 4.0 (CC BY 4.0)", "10.13026/kfzx-aw45"),
    "afdb": ("MIT-BIH Atrial Fibrillation Database", "Open Data Commons Attribution 1.0 (ODC-By)", "10.13026/C2MW2D"),
    "mitdb": ("MIT-BIH Arrhythmia Database", "Open Data Commons Attribution 1.0 (ODC-By)", "10.13026/C2F305"),
    "ltafdb": ("Long Term AF Database", "Open Data Commons Attribution 1.0 (ODC-By)", "10.13026/C2QG6Q"),
}
RUNTIMES = {
    "ai-edge-litert": "Apache License 2.0",
    "tflite-runtime": "Apache License 2.0",
    "onnxruntime": "MIT",
    "tensorrt": "NVIDIA's own licence; comes with the device and is not part of this folder",
}


def describe_licences(dataset: str, data: str, runtimes: list[str]) -> str:
    """Write the licence notes of a bundle.

    Parameters
    ----------
    dataset : str
        Name of the data set, such as ``afdb_inter``.
    data : {"real", "synthetic"}
        Where the signals in the test slice and in the golden vectors come from.
    runtimes : list of str
        Runtimes that the bundle may be run with.

    Returns
    -------
    str
        Markdown.
    """
    known = DATA.get(dataset.partition("_")[0])
    if data == "synthetic":
        signals = "simulated signals; no recording of a person is in this folder."
    elif known:
        title, licence, doi = known
        signals = f"signals from {title}, {licence}, https://doi.org/{doi}. Name it wherever you pass this folder on."
    else:
        signals = (
            f"signals from {dataset}, whose terms this project does not know: read them before you pass this folder on."
        )
    return "\n".join(
        [
            "# Licences",
            "",
            "- run_on_device.py: lightheart, Apache License 2.0.",
            f"- golden.npz and slice.npz hold {signals}",
            "- The model was trained on the same data set; whether its terms reach a model is for you to judge.",
            *(f"- {name}, which is installed beside it: {RUNTIMES[name]}." for name in runtimes),
            "- numpy, which is installed beside it: BSD-3-Clause.",
            "",
        ]
    )
