//! The server's state and the way of one inference through it: queue, worker, model.
//!
//! Owns the faults that people switch on, and what is measured. One thread, so plain cells; it refuses to
//! know paths or JSON, which are the routes' business.

use std::cell::{Cell, OnceCell};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};

use super::classifier::{Classifier, INK_MAX, Image, Prediction, ROW};
use super::digits::{self, Digit};
use super::metrics::Meters;
use super::options::{Options, Release};
use crate::clock::Clock;

/// Below this the model calls itself degraded: the threshold that the exercises alert on.
pub(super) const ACCURACY_MIN: f64 = 0.8;

/// What people have broken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Faults {
    pub(super) hang: Hang,
    /// `/ready` says no, whatever the model says.
    pub(super) unready: bool,
    /// Noise on every image.
    pub(super) degraded: bool,
    /// Added to each inference.
    pub(super) slow: Duration,
}

/// What never answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Hang {
    #[default]
    Nothing,
    /// Inference hangs while `/health` stays 200: a stuck engine behind a lively front.
    Inference,
    /// Everything but the controls.
    Everything,
}

/// What is there once the model has loaded.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) classifier: Classifier,
    pub(super) digits: Vec<Digit>,
}

/// Why an inference was not done.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Rejected {
    #[error("the model is still loading")]
    Loading,
    #[error("{0} requests are waiting already")]
    QueueFull(usize),
}

/// All of the server's state.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) meters: Meters,
    /// Ends the process at once, as a crash does.
    pub(super) crash: Notify,
    faults: watch::Sender<Faults>,
    loaded: OnceCell<Loaded>,
    /// Right answers on the test set, 0 to 1; none before the first measurement.
    accuracy: Cell<Option<f64>>,
    workers: Semaphore,
    waiting: Cell<usize>,
    noise: Cell<u64>,
}

impl Server {
    pub(super) fn new(options: Options) -> Self {
        Self {
            workers: Semaphore::new(usize::from(options.workers)),
            clock: Clock::start(),
            meters: Meters::default(),
            crash: Notify::new(),
            faults: watch::Sender::new(Faults::default()),
            loaded: OnceCell::new(),
            accuracy: Cell::new(None),
            waiting: Cell::new(0),
            // Any seed but 0 keeps xorshift moving; the same noise in every run keeps demonstrations alike.
            noise: Cell::new(0x9e37_79b9_7f4a_7c15),
            options,
        }
    }

    /// Parses weights and test set, and measures the accuracy once. Takes `load_time`, as real weights would.
    pub(super) async fn load(&self) -> Result<(), String> {
        tokio::time::sleep(self.options.load_time).await;
        let classifier = Classifier::load().map_err(|error| error.to_string())?;
        let loaded = Loaded { classifier, digits: digits::load()? };
        // A second load would be a mistake of ours; the first one stays.
        self.loaded.get_or_init(|| loaded);
        self.measure_accuracy();
        Ok(())
    }

    /// The model, once it is there.
    pub(super) fn loaded(&self) -> Option<&Loaded> {
        self.loaded.get()
    }

    pub(super) fn faults(&self) -> Faults {
        *self.faults.borrow()
    }

    /// Changes what is broken, and wakes whoever hangs no more.
    pub(super) fn break_or_mend(&self, change: impl FnOnce(&mut Faults)) -> Faults {
        self.faults.send_modify(change);
        self.measure_accuracy();
        self.faults()
    }

    /// Waits for as long as inference hangs.
    pub(super) async fn inference_moves(&self) {
        self.wait_until(|faults| faults.hang == Hang::Nothing).await;
    }

    /// Waits for as long as everything hangs.
    pub(super) async fn anything_moves(&self) {
        self.wait_until(|faults| faults.hang != Hang::Everything).await;
    }

    async fn wait_until(&self, holds: impl Fn(&Faults) -> bool) {
        // It fails only when the sender is gone, and the sender is ours.
        let _ = self.faults.subscribe().wait_for(holds).await;
    }

    pub(super) fn accuracy(&self) -> Option<f64> {
        self.accuracy.get()
    }

    /// Whether the measured accuracy is too low; not known means no.
    pub(super) fn degraded(&self) -> bool {
        self.accuracy().is_some_and(|accuracy| accuracy < ACCURACY_MIN)
    }

    /// Runs the whole test set. Milliseconds, on the same path as a request's images.
    pub(super) fn measure_accuracy(&self) {
        let Some(loaded) = self.loaded() else { return };
        let right = loaded.digits.iter().filter(|digit| self.predict(loaded, &digit.image).label == digit.label);
        self.accuracy.set(Some(right.count() as f64 / loaded.digits.len() as f64));
    }

    /// Measures again and again, as long as the server runs; not while the engine hangs.
    pub(super) async fn keep_measuring(&self) {
        loop {
            tokio::time::sleep(self.options.accuracy_interval.max(Duration::from_millis(100))).await;
            self.inference_moves().await;
            self.measure_accuracy();
        }
    }

    /// Waits for a worker, then reads the images one after the other.
    pub(super) async fn infer(&self, images: &[Image]) -> Result<Vec<Prediction>, Rejected> {
        let loaded = self.loaded().ok_or(Rejected::Loading)?;
        let _worker = self.worker().await?;
        let service = self.options.service_time + self.faults().slow;
        if !service.is_zero() {
            tokio::time::sleep(service).await;
        }
        self.inference_moves().await;
        let predictions: Vec<_> = images.iter().map(|image| self.predict(loaded, image)).collect();
        self.meters.predicted(predictions.len());
        Ok(predictions)
    }

    async fn worker(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Rejected> {
        if let Ok(worker) = self.workers.try_acquire() {
            return Ok(worker);
        }
        if self.waiting.get() >= self.options.queue {
            return Err(Rejected::QueueFull(self.waiting.get()));
        }
        let _place = Place::take(&self.waiting);
        // The semaphore is never closed; were it, waiting for ever is what a dead worker pool does.
        match self.workers.acquire().await {
            Ok(worker) => Ok(worker),
            Err(_) => std::future::pending().await,
        }
    }

    /// Requests that wait for a worker.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Requests that a worker is at.
    pub(super) fn working(&self) -> usize {
        usize::from(self.options.workers) - self.workers.available_permits()
    }

    fn predict(&self, loaded: &Loaded, image: &Image) -> Prediction {
        let mut image = *image;
        if self.options.release == Release::V2 {
            image = column_by_column(&image);
        }
        if self.faults().degraded {
            image.iter_mut().for_each(|ink| *ink = (*ink + self.noise()).clamp(0.0, INK_MAX));
        }
        loaded.classifier.predict(&image)
    }

    /// Uniform in plus or minus all the ink that there is: about one digit in three is still read right.
    fn noise(&self) -> f32 {
        let mut state = self.noise.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.noise.set(state);
        ((state >> 40) as f32 / (1u64 << 24) as f32 * 2.0 - 1.0) * INK_MAX
    }
}

/// A place in the queue, given back when the request leaves it, also when its client has gone.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(waiting: &'a Cell<usize>) -> Self {
        waiting.set(waiting.get() + 1);
        Self(waiting)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The bug of v2: pre-processing and training disagree about the order of pixels.
fn column_by_column(image: &Image) -> Image {
    let mut out = *image;
    for (index, ink) in out.iter_mut().enumerate() {
        *ink = image[index % ROW * ROW + index / ROW];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::options;
    use super::*;

    async fn loaded(change: impl FnOnce(&mut Options)) -> Server {
        let mut options = options();
        change(&mut options);
        let server = Server::new(options);
        server.load().await.unwrap();
        server
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_release_reads_digits_well() {
        let server = loaded(|_| {}).await;
        assert_eq!(server.accuracy(), Some(0.98));
        assert!(!server.degraded());
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_release_is_sure_and_wrong() {
        let server = loaded(|options| options.release = Release::V2).await;
        assert!(server.accuracy().unwrap() < 0.2, "{:?}", server.accuracy());
        let digit = &server.loaded().unwrap().digits[0];
        let prediction = &server.infer(&[digit.image]).await.unwrap()[0];
        assert_ne!(prediction.label, digit.label);
        assert!(prediction.confidence() > 0.9);
    }

    #[tokio::test(start_paused = true)]
    async fn degrading_costs_accuracy_and_recovering_restores_it() {
        let server = loaded(|_| {}).await;
        server.break_or_mend(|faults| faults.degraded = true);
        assert!(server.accuracy().unwrap() < 0.6, "{:?}", server.accuracy());
        assert!(server.degraded());
        server.break_or_mend(|faults| faults.degraded = false);
        assert_eq!(server.accuracy(), Some(0.98));
    }

    #[tokio::test(start_paused = true)]
    async fn inference_before_the_load_is_rejected() {
        let server = Server::new(options());
        assert_eq!(server.infer(&[[0.0; 64]]).await, Err(Rejected::Loading));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_rejects_and_a_gone_client_gives_its_place_back() {
        let server = loaded(|options| {
            options.workers = 1;
            options.queue = 1;
            options.service_time = Duration::from_secs(1);
        })
        .await;
        let image = [[0.0; 64]];
        let (mut working, mut waiting) = (Box::pin(server.infer(&image)), Box::pin(server.infer(&image)));
        tokio::select! { biased; _ = &mut working => panic!("too fast"), _ = &mut waiting => panic!("too fast"),
        () = std::future::ready(()) => {} }
        assert_eq!((server.working(), server.waiting()), (1, 1));
        assert_eq!(server.infer(&image).await, Err(Rejected::QueueFull(1)));
        drop(waiting);
        assert_eq!(server.waiting(), 0);
        assert!(working.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_inference_ends_when_the_hang_does() {
        let server = loaded(|_| {}).await;
        server.break_or_mend(|faults| faults.hang = Hang::Inference);
        let image = [[0.0; 64]];
        let inference = server.infer(&image);
        tokio::pin!(inference);
        assert!(tokio::time::timeout(Duration::from_secs(3600), &mut inference).await.is_err());
        server.break_or_mend(|faults| faults.hang = Hang::Nothing);
        assert!(inference.await.is_ok());
    }
}
