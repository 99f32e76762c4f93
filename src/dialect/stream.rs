//! A stream on its way from a model to the caller.

use super::frame::Frames;
use super::pair::{Translate, translator};
use super::usage::Meter;
use super::{Asked, Dialect, Error, Failure, Finish, Step, Usage};

/// Translates a stream while it passes, and counts along.
///
/// Bytes go in as they arrive, frames for the caller come out; nothing is held back but an unfinished frame.
pub struct Stream {
    frames: Frames,
    translate: Box<dyn Translate>,
    meter: Meter,
    done: bool,
    begun: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("done", &self.done).field("begun", &self.begun).finish_non_exhaustive()
    }
}

impl Stream {
    /// A stream of a model that speaks `from`, for whoever asked.
    ///
    /// # Errors
    /// Nobody translates between the two.
    pub fn new(from: Dialect, asked: &Asked) -> Result<Self, Error> {
        Ok(Self {
            frames: Frames::of(from, asked.limits.frame_max_bytes)?,
            translate: translator(from, asked)?,
            meter: Meter::new(asked.input_tokens_estimated),
            done: false,
            begun: false,
        })
    }

    /// Takes a chunk as it arrived and appends to `out` what the caller gets for it.
    ///
    /// `Failed` means that the provider broke off with an error of its own: if nothing has [begun](Self::has_begun),
    /// somebody else can be asked; otherwise the caller is told with [`fail`](Self::fail).
    ///
    /// # Errors
    /// A frame is too long or makes no sense. The stream is over then; tell the caller with [`fail`](Self::fail).
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<Step, Error> {
        if self.done {
            return Ok(Step::Done);
        }
        let before = out.len();
        self.frames.push(chunk)?;
        while let Some(frame) = self.frames.next()? {
            match self.translate.frame(&frame, out, &mut self.meter)? {
                Step::More => {}
                Step::Done => {
                    self.done = true;
                    break;
                }
                failed @ Step::Failed(_) => {
                    self.done = true;
                    self.begun |= out.len() > before;
                    return Ok(failed);
                }
            }
        }
        self.begun |= out.len() > before;
        Ok(if self.done { Step::Done } else { Step::More })
    }

    /// The provider closed the stream. Servers that forget to say that they are done are forgiven if they said why the
    /// model stopped.
    ///
    /// # Errors
    /// The answer broke off. Nothing was written about it.
    pub fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        if self.done {
            return Ok(());
        }
        self.done = true;
        if self.frames.is_mid_frame() || !self.translate.close(out, &mut self.meter) {
            return Err(Failure::cut());
        }
        Ok(())
    }

    /// Appends an error in the caller's dialect: clients raise it, and nobody takes half an answer for a whole one.
    pub fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        self.done = true;
        self.translate.fail(failure, out);
    }

    /// Whether anything was written for the caller.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether a word of the answer came yet; a role alone is none.
    pub fn has_text(&self) -> bool {
        self.meter.has_text()
    }

    /// Whether the answer is whole or has failed.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// What was used so far: told by the provider, or counted here and marked as estimated. Right at any time, also
    /// when the caller hangs up.
    pub fn usage(&self) -> Usage {
        self.meter.usage()
    }

    /// Why the model stopped, once it is known.
    pub fn finish(&self) -> Option<Finish> {
        self.translate.finish()
    }
}
