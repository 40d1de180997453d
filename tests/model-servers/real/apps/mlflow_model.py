"""Writes an MLflow model that takes half a second, one request at a time: python mlflow_model.py FOLDER"""

import sys
import threading
import time

import mlflow.pyfunc


class Slow(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.worker = threading.Lock()

    def predict(self, context, model_input, params=None):
        with self.worker:
            time.sleep(0.5)
        return [1.0] * len(model_input)


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=Slow(), pip_requirements=[])
