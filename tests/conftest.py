import os

# Before torch and onnxruntime are imported: tests are many and small, threads would only wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"
# Nothing leaves the machine.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
