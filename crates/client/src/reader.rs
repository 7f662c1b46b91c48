//! Fetches one blob, or chunks of one, from whichever copy gives the right bytes first.
//!
//! Nothing leaves here unverified: whole blobs are checked against the MD5 that came from the master, ranges
//! against the CRC32C of their chunks.

use crate::blobs::{Inner, Tries, failed_at};
use crate::checksum::{announce, crc32c_chunks, md5_of_blob, off_worker};
use crate::placement::replica_order;
use crate::retry::{Backoff, passes_by_itself};
use crate::{ClientError, FetchedBlob};
use bytes::Bytes;
use dfs_proto::meta::CopyProblem;
use dfs_proto::node::CopyInfo;
use dfs_proto::{BlobRef, CHUNK_BYTES, ErrorCode, NodeId, VolumeInfo};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const BACKOFF: Backoff = Backoff::of_ms(100, 1000);

/// All copies are asked once by what is known of their places, and once more after asking the master.
const ROUNDS_MIN: u32 = 2;

/// What is wanted of a blob.
#[derive(Clone, Debug)]
enum Part {
    Whole,
    Chunks(Range<u32>),
}

/// A copy that did not give the right bytes.
struct BadTry {
    reason: String,
    /// What to tell the master, if anything.
    problem: Option<CopyProblem>,
    /// Whether the copy may be fine and only its node away.
    may_pass: bool,
}

pub(crate) async fn get(inner: &Inner, blob: &BlobRef) -> Result<Bytes, ClientError> {
    fetch(inner, blob, Part::Whole).await
}

pub(crate) async fn get_range(
    inner: &Inner,
    blob: &BlobRef,
    start: u32,
    length: u32,
) -> Result<Bytes, ClientError> {
    let end = start.checked_add(length).filter(|end| *end <= blob.length).ok_or_else(|| {
        let message =
            format!("{length} bytes from {start} on are not within the {} of blob {}", blob.length, blob.id);
        ClientError::local(ErrorCode::InvalidArgument, message)
    })?;
    if length == 0 {
        return Ok(Bytes::new());
    }
    // A range that needs every chunk anyway gets the stronger check.
    let Some(chunks) = some_chunks(blob, start, end) else {
        return Ok(get(inner, blob).await?.slice(start as usize..end as usize));
    };
    let first = chunks.start as usize * CHUNK_BYTES;
    let data = fetch(inner, blob, Part::Chunks(chunks)).await?;
    Ok(data.slice(start as usize - first..end as usize - first))
}

/// The chunks that hold `start..end`, which is not empty; `None` when that is all of them.
fn some_chunks(blob: &BlobRef, start: u32, end: u32) -> Option<Range<u32>> {
    let chunk = CHUNK_BYTES as u32;
    let chunks = start / chunk..end.div_ceil(chunk);
    (chunks.start > 0 || chunks.end < blob.length.div_ceil(chunk)).then_some(chunks)
}

/// The range from a file of a node on this host, if that has it at hand.
pub(crate) fn try_get_range(inner: &Inner, blob: &BlobRef, start: u32, length: u32) -> Option<Bytes> {
    let end = start.checked_add(length).filter(|end| *end <= blob.length && length > 0)?;
    let chunks = some_chunks(blob, start, end)?;
    let volume = inner.placement.get(blob.id.volume)?;
    let first = chunks.start as usize * CHUNK_BYTES;
    volume.copies.iter().find_map(|copy| {
        let url = &copy.node.url;
        let fetched = inner.local.try_read(url, blob.id, chunks.clone())?;
        match wanted_chunks(&fetched, blob.length as usize, blob.md5, chunks.clone()) {
            Ok(data) => Some(data.slice(start as usize - first..end as usize - first)),
            Err(reason) => {
                log::debug!("blob {} is not where it was in a file of {url}: {reason}", blob.id);
                inner.local.forget(url, blob.id);
                None
            }
        }
    })
}

/// Rounds over the copies until one is good or there is no hope.
async fn fetch(inner: &Inner, blob: &BlobRef, part: Part) -> Result<Bytes, ClientError> {
    let give_up = Instant::now() + inner.config.get_patience;
    let mut tries = Tries::default();
    let mut known = inner.placement.get(blob.id.volume);
    let mut round = 0;
    loop {
        let fresh = known.is_none();
        let volume = match known.take() {
            Some(volume) => volume,
            None => match locate(inner, blob).await {
                Ok(volume) => volume,
                Err(e) if tries.is_empty() => return Err(e),
                Err(e) => {
                    tries.add(format!("master: {e}"));
                    return Err(no_good_copy(blob, tries));
                }
            },
        };
        let may_pass = match one_round(inner, &volume, blob, &part, &mut tries).await {
            Ok(data) => return Ok(data),
            Err(may_pass) => may_pass,
        };
        round += 1;
        if round >= ROUNDS_MIN && (!may_pass || Instant::now() >= give_up) {
            return Err(no_good_copy(blob, tries));
        }
        if fresh {
            BACKOFF.wait(round, give_up.max(Instant::now())).await;
        }
    }
}

async fn locate(inner: &Inner, blob: &BlobRef) -> Result<Arc<VolumeInfo>, ClientError> {
    inner.locate(blob.id.volume).await?.ok_or_else(|| ClientError::NoGoodCopy {
        blob: blob.id,
        tries: vec![format!("the master does not know volume {}", blob.id.volume)],
    })
}

fn no_good_copy(blob: &BlobRef, tries: Tries) -> ClientError {
    let error = ClientError::NoGoodCopy { blob: blob.id, tries: tries.into_lines() };
    log::error!("{error}");
    error
}

/// Asks the copies in their order: the next one when one fails, and also when one is late. Whichever gives
/// the right bytes first counts. An error tells whether another round may go better.
async fn one_round(
    inner: &Inner,
    volume: &VolumeInfo,
    blob: &BlobRef,
    part: &Part,
    tries: &mut Tries,
) -> Result<Bytes, bool> {
    let has_failed = |n| inner.health.has_failed(n);
    let order =
        replica_order(volume, blob.seq, has_failed, |n| inner.local.is_near(&n.url), &mut rand::rng());
    let mut waiting = order.into_iter();
    let Some(first) = waiting.next() else {
        tries.add(format!("volume {} has no copies at all", volume.id));
        return Err(false);
    };
    let lateness = &inner.lateness[usize::from(matches!(part, Part::Chunks(_)))];
    lateness.note_begun();
    let mut running = FuturesUnordered::new();
    let mut latest = Asked::now(&first);
    let mut late = Vec::new();
    running.push(try_copy(inner, first, blob, part));
    let mut may_pass = false;
    loop {
        let usual = lateness.late_after(inner.config.hedge_delay);
        let is_late = tokio::time::sleep_until(latest.at + latest.patience(usual, inner.config.hedge_delay));
        tokio::select! {
            Some((copy, outcome)) = running.next() => match outcome {
                Ok((data, took)) => {
                    lateness.note_took(took);
                    inner.health.note_good(copy.node.id);
                    late.iter().filter(|n| **n != copy.node.id).for_each(|n| inner.health.note_overtaken(*n));
                    return Ok(data);
                }
                Err(bad) => {
                    may_pass |= bad.may_pass;
                    late.retain(|node| *node != copy.node.id);
                    take_in(inner, blob, &copy, bad, tries);
                    match waiting.next() {
                        Some(next) => {
                            latest = Asked::now(&next);
                            running.push(try_copy(inner, next, blob, part));
                        }
                        None if running.is_empty() => return Err(may_pass),
                        None => {}
                    }
                }
            },
            () = is_late, if waiting.len() > 0 => {
                let is_hopeless = latest.at.elapsed() >= inner.config.hedge_delay;
                if !is_hopeless && !lateness.may_go_again() {
                    latest.waits_longer = true;
                    continue;
                }
                if is_hopeless {
                    // So that the next blobs are not late as well.
                    inner.health.note_failed(latest.node);
                }
                if let Some(next) = waiting.next() {
                    log::debug!("blob {} is late from node {}; asking {} too", blob.id, latest.node, next.node.name);
                    late.push(latest.node);
                    latest = Asked::now(&next);
                    running.push(try_copy(inner, next, blob, part));
                }
            }
        }
    }
}

/// The copy that was asked last.
struct Asked {
    node: NodeId,
    at: Instant,
    /// Whether no other copy is asked before it is hopeless.
    waits_longer: bool,
}

impl Asked {
    fn now(copy: &CopyInfo) -> Asked {
        Asked { node: copy.node.id, at: Instant::now(), waits_longer: false }
    }

    fn patience(&self, usual: Duration, longest: Duration) -> Duration {
        if self.waits_longer { longest } else { usual }
    }
}

fn take_in(inner: &Inner, blob: &BlobRef, copy: &CopyInfo, bad: BadTry, tries: &mut Tries) {
    let node = &copy.node;
    let line = failed_at(node, &bad.reason);
    log::warn!("blob {} cannot be had from {line}", blob.id);
    tries.add(line);
    let Some(problem) = bad.problem else { return };
    // One report for a node that is away, not one for each blob on it.
    if problem != CopyProblem::Unreachable || inner.health.note_failed(node.id) {
        inner.report(blob.id, node.id, problem);
    }
}

async fn try_copy(
    inner: &Inner,
    copy: CopyInfo,
    blob: &BlobRef,
    part: &Part,
) -> (CopyInfo, Result<(Bytes, Duration), BadTry>) {
    let limit = inner.config.get_try;
    let begun = Instant::now();
    let attempt = async {
        let url = &copy.node.url;
        if let Some(data) = from_file(inner, url, blob, part).await {
            return Ok(data);
        }
        let fetched = match part {
            Part::Whole => inner.nodes.get(url, blob.id).await,
            Part::Chunks(chunks) => inner.nodes.get_chunks(url, blob.id, chunks.clone()).await,
        };
        let fetched = fetched.map_err(|e| refused(&e, &copy, blob))?;
        verified(fetched, blob, part).await
    };
    let outcome = tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| {
        Err(BadTry {
            reason: format!("no answer within {} ms", limit.as_millis()),
            problem: Some(CopyProblem::Unreachable),
            may_pass: true,
        })
    });
    (copy, outcome.map(|data| (data, begun.elapsed())))
}

/// The verified bytes from a file of a node on this host. What is not right there is no news of the copy: the
/// node is asked, and looks itself.
async fn from_file(inner: &Inner, url: &str, blob: &BlobRef, part: &Part) -> Option<Bytes> {
    let (chunks, announced) = match part {
        Part::Whole => (None, announce(blob.length as usize)),
        Part::Chunks(chunks) => (Some(chunks.clone()), None),
    };
    let fetched = inner.local.read(&*inner.nodes, url, blob.id, chunks).await?;
    // Its first poll puts the blob among those that wait to be hashed.
    let mut checking = pin!(verified(fetched, blob, part));
    let at_once = checking.as_mut().now_or_never();
    drop(announced);
    let checked = match at_once {
        Some(checked) => checked,
        None => checking.await,
    };
    match checked {
        Ok(data) => Some(data),
        Err(bad) => {
            log::info!("blob {} is not where it was in a file of {url}: {}", blob.id, bad.reason);
            inner.local.forget(url, blob.id);
            None
        }
    }
}

/// What an error of the node says about its copy.
fn refused(error: &ClientError, copy: &CopyInfo, blob: &BlobRef) -> BadTry {
    let code = error.code();
    let is_behind = copy.seq < blob.seq;
    let problem = match code {
        ErrorCode::Corrupt => Some(CopyProblem::Damaged),
        // A copy that is behind gets the blob by replication; that is no damage.
        ErrorCode::NotFound | ErrorCode::UnknownVolume => (!is_behind).then_some(CopyProblem::Missing),
        code if passes_by_itself(code) || code == ErrorCode::Io => Some(CopyProblem::Unreachable),
        _ => None,
    };
    BadTry { reason: error.to_string(), problem, may_pass: passes_by_itself(code) }
}

/// The bytes, if they are the right ones.
async fn verified(fetched: FetchedBlob, blob: &BlobRef, part: &Part) -> Result<Bytes, BadTry> {
    let damaged = |reason: String| BadTry { reason, problem: Some(CopyProblem::Damaged), may_pass: false };
    let (length, wanted) = (blob.length as usize, blob.md5);
    let checked = match part {
        Part::Whole => {
            let data = fetched.data;
            if data.len() != length {
                return Err(damaged(format!("{} bytes instead of {length}", data.len())));
            }
            let sum = md5_of_blob(data.clone()).await;
            sum.map(|sum| match sum == wanted {
                true => Ok(data),
                false => Err(format!("MD5 {sum} instead of {wanted}")),
            })
        }
        Part::Chunks(chunks) => {
            let chunks = chunks.clone();
            let data = fetched.data.clone();
            off_worker(data, move |_| wanted_chunks(&fetched, length, wanted, chunks)).await
        }
    };
    match checked {
        Ok(result) => result.map_err(damaged),
        // This program failed, not the copy.
        Err(e) => Err(BadTry { reason: e.to_string(), problem: None, may_pass: false }),
    }
}

/// Cuts `chunks` out of an answer after checking that it is about the right blob and that every chunk of it
/// matches its checksum. The answer may hold more than was asked for.
fn wanted_chunks(
    fetched: &FetchedBlob,
    length: usize,
    md5: dfs_proto::Md5,
    chunks: Range<u32>,
) -> Result<Bytes, String> {
    let got_start = fetched.first_chunk as usize * CHUNK_BYTES;
    let got_end = got_start + fetched.data.len();
    let start = chunks.start as usize * CHUNK_BYTES;
    let end = (chunks.end as usize * CHUNK_BYTES).min(length);
    if fetched.md5 != md5 {
        return Err(format!("the blob there has MD5 {}, not {md5}", fetched.md5));
    }
    if got_start > start || got_end < end || got_end > length {
        return Err(format!("bytes {got_start}..{got_end} instead of {start}..{end} of {length}"));
    }
    if crc32c_chunks(&fetched.data) != fetched.crc32c {
        return Err(format!("the checksums of bytes {got_start}..{got_end} do not match"));
    }
    Ok(fetched.data.slice(start - got_start..end - got_start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::{Md5, Seq};

    const LENGTH: usize = 3 * CHUNK_BYTES + 100;

    fn answer(first_chunk: u32, bytes: Range<usize>) -> FetchedBlob {
        let data: Vec<u8> = (0..LENGTH).map(|n| (n / 7) as u8).collect();
        let data = Bytes::from(data).slice(bytes);
        let crc32c = crc32c_chunks(&data);
        FetchedBlob { data, first_chunk, crc32c, md5: Md5([1; 16]), seq: Seq(1) }
    }

    fn check(fetched: &FetchedBlob, chunks: Range<u32>) -> Result<usize, String> {
        wanted_chunks(fetched, LENGTH, Md5([1; 16]), chunks).map(|data| data.len())
    }

    #[test]
    fn exactly_the_wanted_chunks_are_cut_out_of_a_larger_answer() {
        assert_eq!(check(&answer(1, CHUNK_BYTES..2 * CHUNK_BYTES), 1..2), Ok(CHUNK_BYTES));
        assert_eq!(check(&answer(0, 0..LENGTH), 1..3), Ok(2 * CHUNK_BYTES));
        assert_eq!(check(&answer(3, 3 * CHUNK_BYTES..LENGTH), 3..4), Ok(100));
    }

    #[test]
    fn an_answer_that_is_short_long_foreign_or_changed_is_refused() {
        assert!(check(&answer(1, CHUNK_BYTES..2 * CHUNK_BYTES - 1), 1..2).is_err());
        assert!(check(&answer(2, 2 * CHUNK_BYTES..LENGTH), 1..3).is_err());
        assert!(check(&answer(3, 2 * CHUNK_BYTES..LENGTH), 3..4).is_err());
        let mut foreign = answer(1, CHUNK_BYTES..2 * CHUNK_BYTES);
        foreign.md5 = Md5([2; 16]);
        assert!(check(&foreign, 1..2).is_err());
        let mut flipped = answer(1, CHUNK_BYTES..2 * CHUNK_BYTES);
        let mut bytes = flipped.data.to_vec();
        bytes[5] ^= 1;
        flipped.data = bytes.into();
        assert!(check(&flipped, 1..2).is_err());
    }
}
