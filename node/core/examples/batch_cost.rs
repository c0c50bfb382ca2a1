//! What rows of a batch cost: bytes, and time to write and to read them.
//! `cargo run --release -p remora-core --example batch_cost`

#![allow(
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods
)] // a measuring program, not the core

use std::time::Instant;

use remora_core::peers::batch::{BatchReader, BatchWriter, Columns, RowHead, columns_of};
use remora_core::table::{DataType, Lineage, Stored};

const ROWS: u32 = 1_000_000;
const BATCH: u32 = 1_000;

fn main() {
    let store = [
        (DataType::ConnCnt, 0),
        (DataType::ConnRate, 10_000),
        (DataType::HttpReqCnt, 0),
        (DataType::HttpReqRate, 60_000),
    ];
    let store = store.map(|(data_type, period_ms)| Stored {
        data_type,
        elements: 1,
        period_ms,
    });
    let columns = columns_of(&store);
    for round in 0..3 {
        let mut writer = BatchWriter::new(&columns[..]);
        let mut batches = Vec::new();
        let begun = Instant::now();
        for i in 0..ROWS {
            let random = i.wrapping_mul(0x9e37_79b9);
            let head = RowHead {
                lineage: Lineage(77),
                version: u64::from(i),
                touch_age_ms: random % 20,
                ..RowHead::default()
            };
            writer.row(&random.to_be_bytes(), &head, &[]);
            writer.counter(u64::from(random % 200));
            writer.rate(random % 10_000, random % 100, random % 110);
            writer.counter(u64::from(random % 900));
            writer.rate(random % 60_000, random % 200, random % 150);
            if writer.rows() == BATCH as usize {
                batches.push(writer.finish());
            }
        }
        let written = begun.elapsed();
        let bytes: usize = batches.iter().map(Columns::bytes).sum();
        let begun = Instant::now();
        let mut sum = 0u64;
        for batch in &batches {
            let Ok(mut batch) = BatchReader::new(batch, &columns) else {
                println!("a batch was refused");
                return;
            };
            while let Some((key, head, _)) = batch.next_row() {
                sum += u64::from(key[0]) + head.version + batch.counter();
                sum += batch.rate().map_or(0, |(_, cur, _)| u64::from(cur));
                sum += batch.counter();
                sum += batch.rate().map_or(0, |(_, cur, _)| u64::from(cur));
            }
        }
        let read = begun.elapsed();
        let each = |t: std::time::Duration| t.as_nanos() as f64 / f64::from(ROWS);
        println!(
            "round {round}: {:.1} bytes, write {:.0} ns, check and read {:.0} ns a row (sum {sum})",
            bytes as f64 / f64::from(ROWS),
            each(written),
            each(read)
        );
    }
}
