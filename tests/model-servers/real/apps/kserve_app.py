"""A KServe model that takes half a second, one at a time."""

import threading
import time

import kserve

worker = threading.Lock()


class Slow(kserve.Model):
    def load(self):
        self.ready = True
        return True

    def predict(self, payload, headers=None, response_headers=None):
        with worker:
            time.sleep(0.5)
        return {"predictions": payload["instances"]}


if __name__ == "__main__":
    model = Slow("slow")
    model.load()
    kserve.ModelServer().start([model])
