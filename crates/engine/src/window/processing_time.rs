//! Windows over processing time: the operators of event time, driven by the clock of the epochs instead of by the
//! watermark. The clock stands still within an epoch and is recorded with it, so that a replay puts the same rows
//! into the same windows (I6); windows therefore close at the end of an epoch.

use mainstem_core::ids::Epoch;
use mainstem_core::time::Timestamp;

use crate::element::StreamBatch;
use crate::error::EngineError;
use crate::operator::{Capture, Collector, Operator, Release, Restored};

/// A windowed operator that goes by processing time.
pub(crate) struct ByProcessingTime<O>(pub(crate) O);

impl<O: Operator> Operator for ByProcessingTime<O> {
    fn state_bytes(&self) -> usize {
        self.0.state_bytes()
    }

    fn process(&mut self, input: usize, mut batch: StreamBatch, out: &mut Collector) -> Result<(), EngineError> {
        // Lateness is a matter of event time.
        batch.own_watermark = None;
        self.0.process(input, batch, out)
    }

    fn has_more(&self) -> bool {
        self.0.has_more()
    }

    fn go_on(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        self.0.go_on(out)
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        // Only the end of the input counts: all windows close.
        if watermark == Timestamp::MAX { self.0.on_watermark(watermark, out) } else { Ok(Release::Done) }
    }

    fn on_processing_time(&mut self, now: Timestamp, out: &mut Collector) -> Result<Release, EngineError> {
        self.0.on_watermark(now.plus_ms(-1), out)
    }

    fn flush_held(&mut self, out: &mut Collector) -> Result<(), EngineError> {
        self.0.flush_held(out)
    }

    fn capture(&mut self, epoch: Epoch) -> Result<Option<Capture>, EngineError> {
        self.0.capture(epoch)
    }

    fn restore_meta(&mut self, metas: &[String]) -> Result<(), EngineError> {
        self.0.restore_meta(metas)
    }

    fn restore(&mut self, state: Restored) -> Result<(), EngineError> {
        self.0.restore(state)
    }

    fn restored(&mut self) -> Result<(), EngineError> {
        self.0.restored()
    }
}
