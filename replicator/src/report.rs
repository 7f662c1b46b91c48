//! Orders in words, for the log.

use dfs_proto::NodeInfo;
use dfs_proto::order::{Order, OrderTask};
use std::time::Duration;

/// `report.txt (+41 more) : sn1 -> sn4 (volume 7, 1.2 MiB in 14 ms)`
pub(crate) fn done(order: &Order, source: &NodeInfo, bytes: u64, took: Duration) -> String {
    let what = match order.task {
        OrderTask::CatchUp(_) => format!("volume {}, {}", order.volume, size(bytes)),
        OrderTask::Repair(key) => format!("blob {}/{key} repaired", order.volume),
    };
    format!("{} : {} -> {} ({what} in {})", order.hint, source.name, order.target.name, time(took))
}

/// `report.txt (+41 more) : sn4 has not got volume 7 yet (try 3, next in 400 ms): REASON`
pub(crate) fn retry(order: &Order, attempt: u32, delay: Duration, reason: &str) -> String {
    format!("{} yet (try {attempt}, next in {}): {reason}", not_got(order), time(delay))
}

/// `report.txt (+41 more) : sn4 has not got volume 7 and order 12 is given up (try 3): REASON`
pub(crate) fn dead(order: &Order, attempt: u32, reason: &str) -> String {
    format!("{} and order {} is given up (try {attempt}): {reason}", not_got(order), order.id)
}

fn not_got(order: &Order) -> String {
    let what = match order.task {
        OrderTask::CatchUp(seq) => format!("volume {} up to {seq}", order.volume),
        OrderTask::Repair(key) => format!("a good blob {}/{key}", order.volume),
    };
    format!("{} : {} has not got {what}", order.hint, order.target.name)
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

fn time(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::tests::order;
    use dfs_proto::BlobKey;

    #[test]
    fn lines_tell_file_way_volume_size_and_time() {
        let order = order(12);
        let source = order.sources[0].clone();
        assert_eq!(
            done(&order, &source, 1_258_291, Duration::from_millis(14)),
            "report.txt (+41 more) : sn1 -> sn4 (volume 7, 1.2 MiB in 14 ms)"
        );
        assert_eq!(
            retry(&order, 3, Duration::from_millis(1500), "no"),
            "report.txt (+41 more) : sn4 has not got volume 7 up to 9 yet (try 3, next in 1.5 s): no"
        );
        assert_eq!(
            dead(&order, 3, "no"),
            "report.txt (+41 more) : sn4 has not got volume 7 up to 9 and order 12 is given up (try 3): no"
        );
        let repair = Order { task: OrderTask::Repair(BlobKey(5)), hint: "repair".into(), ..order };
        assert_eq!(
            done(&repair, &source, 0, Duration::from_millis(2)),
            "repair : sn1 -> sn4 (blob 7/5 repaired in 2 ms)"
        );
    }

    #[test]
    fn sizes_have_a_unit_that_fits() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 30, "5.0 GiB"), (u64::MAX, "16384.0 PiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
