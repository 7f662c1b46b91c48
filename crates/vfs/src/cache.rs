//! Verified blobs in memory, each fetched once however many ask for it.

use bytes::Bytes;
use dfs_client::{ClientError, DataClient};
use dfs_proto::{BlobId, BlobRef};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use std::sync::Arc;

/// Share of the cache for blobs that were asked for again. The rest is for those that were read ahead and have
/// not been asked for: with the library's default it would be smaller than one blob, and with more than one
/// shard so would each shard.
const HOT_SHARE: f64 = 0.5;

#[derive(Clone)]
struct Length;

impl Weighter<BlobId, Bytes> for Length {
    fn weight(&self, _: &BlobId, blob: &Bytes) -> u64 {
        // An entry costs something besides its bytes.
        blob.len() as u64 + 128
    }
}

/// The eviction is that of quick_cache (Clock-PRO like), which a long scan does not empty.
pub(crate) struct BlobCache {
    blobs: Cache<BlobId, Bytes, Length>,
    data: Arc<dyn DataClient>,
}

impl BlobCache {
    pub fn new(bytes_max: usize, data: Arc<dyn DataClient>) -> BlobCache {
        let options = OptionsBuilder::new()
            .estimated_items_capacity((bytes_max / (64 << 10)).max(16))
            .weight_capacity(bytes_max as u64)
            .shards(1)
            .hot_allocation(HOT_SHARE)
            .build()
            .expect("every option that has no default is given");
        let blobs =
            Cache::with_options(options, Length, DefaultHashBuilder::default(), DefaultLifecycle::default());
        BlobCache { blobs, data }
    }

    /// The whole blob, fetched if it is not here.
    pub async fn whole(&self, blob: &BlobRef) -> Result<Bytes, ClientError> {
        self.blobs.get_or_insert_async(&blob.id, self.data.get(blob)).await
    }

    /// The whole blob if it is here.
    pub fn peek(&self, blob: &BlobRef) -> Option<Bytes> {
        self.blobs.get(&blob.id)
    }
}
