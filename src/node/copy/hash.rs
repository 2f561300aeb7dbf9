//! Hashes by ranges: `HSCAN` and `HSET`, and when single fields expire (Redis 7.4, Valkey 9), if the servers know that.

use redis_protocol::resp3::types::BytesFrame;

use super::look::Seen;
use super::ranges::{CHUNK_ELEMENTS, Scan, Stride};
use super::wire::{Batch, Stop, items_of, number_of, scanned};
use super::{Copy, Names};
use crate::node::control::{bytes_of, is_error};

impl Copy<'_> {
    pub(super) async fn hash(&mut self, key: Names<'_>, seen: &Seen) -> Result<(), Stop> {
        let mut stride = Stride::new(seen, CHUNK_ELEMENTS);
        let mut scan = Scan::new(seen);
        let mut fields_expire = true;
        while let Some(cursor) = scan.cursor() {
            let reply = self
                .read(&[b"HSCAN", key.source, cursor, b"COUNT", stride.digits().as_bytes()])
                .await?;
            let (next, pairs) = scanned(reply)?;
            let args: Vec<&[u8]> = pairs.iter().map(bytes_of).collect();
            let bytes = self
                .put(&[b"HSET", key.target], &args, 2, 2 * CHUNK_ELEMENTS)
                .await?;
            if fields_expire {
                let fields: Vec<&[u8]> = args.iter().step_by(2).copied().collect();
                fields_expire = self.field_expiries(key, &fields).await?;
            }
            stride.learn(args.len() / 2, bytes);
            scan.go_on(&next, args.len() / 2)?;
        }
        Ok(())
    }

    /// Lets fields that have been written expire when they do on the source. Whether the source knows of such things.
    async fn field_expiries(&mut self, key: Names<'_>, fields: &[&[u8]]) -> Result<bool, Stop> {
        for fields in fields.chunks(CHUNK_ELEMENTS) {
            let count = fields.len().to_string();
            let mut args: Vec<&[u8]> = vec![b"HPEXPIRETIME", key.source, b"FIELDS", count.as_bytes()];
            args.extend_from_slice(fields);
            let reply = self.source.call_raw(&args).await?;
            if is_error(&reply) {
                // It does not know the command, or the key is of another type by now, which is seen with the next range.
                return Ok(false);
            }
            let times = match reply {
                // The key is no more.
                BytesFrame::Null => return Err(Stop::Changed),
                reply => items_of(reply)?,
            };
            let mut batch = Batch::default();
            for (field, time) in fields.iter().zip(&times) {
                match number_of(time) {
                    // It has expired since it was read.
                    Some(-2) => batch.push(&[b"HDEL", key.target, field]),
                    Some(at) if at >= 0 => {
                        batch.push(&[
                            b"HPEXPIREAT",
                            key.target,
                            at.to_string().as_bytes(),
                            b"FIELDS",
                            b"1",
                            field,
                        ]);
                    }
                    _ => {}
                }
            }
            // A target that does not know the command keeps the fields until the source has them removed.
            batch.send(self.target).await?;
        }
        Ok(true)
    }
}
