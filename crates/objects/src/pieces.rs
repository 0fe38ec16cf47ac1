//! Reading an object from its beginning to its end, a piece at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use mainstem_rt::run_blocking;
use object_store::{Error, GetResult, GetResultPayload, Result};

/// Bytes that are read of a file at a time: each piece is a turn on another thread.
const PIECE_BYTES: u64 = 1 << 20;

/// The bytes of an object, in order. `object_store` itself reads files 8 KiB at a time, whose turns take far longer than
/// what is read in them.
pub fn pieces(found: GetResult) -> BoxStream<'static, Result<Bytes>> {
    let range = found.range;
    match found.payload {
        GetResultPayload::File(file, _) => {
            let rest = stream::try_unfold((file, range.start), move |(file, at)| async move {
                let until = range.end.min(at + PIECE_BYTES);
                if at >= until {
                    return Ok(None);
                }
                let read = run_blocking(move || read(&file, at, until).map(|bytes| (bytes, (file, until)))).await;
                read.map_err(io::Error::other).flatten().map(Some).map_err(failed)
            });
            rest.boxed()
        }
        GetResultPayload::Stream(stream) => stream,
    }
}

/// Size and CRC-32C of an object.
pub async fn checksum_of(found: GetResult) -> Result<(u64, u32)> {
    let add = |(size, crc): (u64, u32), piece: Bytes| {
        std::future::ready(Ok((size + piece.len() as u64, crc32c::crc32c_append(crc, &piece))))
    };
    pieces(found).try_fold((0, 0), add).await
}

fn read(file: &File, from: u64, to: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(to - from).expect("at most a piece")];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes.into())
}

fn failed(source: io::Error) -> Error {
    Error::Generic { store: "LocalFileSystem", source: source.into() }
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;
    use object_store::{GetOptions, ObjectStore, ObjectStoreExt};

    use super::*;

    #[tokio::test]
    async fn files_and_streams_are_read_whole_and_in_order() {
        let directory = std::env::temp_dir().join(format!("mainstem-pieces-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let stores: [Box<dyn ObjectStore>; 2] =
            [Box::new(LocalFileSystem::new_with_prefix(&directory).unwrap()), Box::new(InMemory::new())];
        let content: Bytes = (0..3 * PIECE_BYTES + 5).map(|at| (at / 7) as u8).collect();
        for store in stores {
            store.put(&"a".into(), content.clone().into()).await.unwrap();
            let read = pieces(store.get(&"a".into()).await.unwrap()).try_collect::<Vec<_>>().await.unwrap().concat();
            assert!(read == content);
            let (size, crc) = checksum_of(store.get(&"a".into()).await.unwrap()).await.unwrap();
            assert_eq!((size, crc), (content.len() as u64, crc32c::crc32c(&content)));
            let some = GetOptions::new().with_range(Some(3_u64..PIECE_BYTES + 9));
            let found = store.get_opts(&"a".into(), some).await.unwrap();
            let read = pieces(found).try_collect::<Vec<_>>().await.unwrap().concat();
            assert!(read == content[3..PIECE_BYTES as usize + 9]);
            store.put(&"empty".into(), Bytes::new().into()).await.unwrap();
            assert_eq!(checksum_of(store.get(&"empty".into()).await.unwrap()).await.unwrap(), (0, 0));
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
