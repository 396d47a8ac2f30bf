use prometheus::proto;

/// Upper bounds of the buckets, in seconds: from what a memory lookup takes to where callers give up.
const BOUNDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Durations by bucket, of the whole life of the program: what several replicas count can be added up.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// How many fell between the bound before and this one.
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    pub(super) fn add(&mut self, seconds: f64) {
        self.count += 1;
        self.sum += seconds;
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
    }

    pub(super) fn encode(&self) -> proto::Histogram {
        let mut below = 0;
        let bucket = |(bound, count): (&f64, &u64)| {
            below += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            bucket
        };
        let buckets = BOUNDS.iter().zip(&self.counts).map(bucket).collect();
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(self.count);
        histogram.set_sample_sum(self.sum);
        histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_all_up_to_its_bound() {
        let mut histogram = Histogram::default();
        for seconds in [0.0, 0.0005, 0.0006, 0.3, 11.0] {
            histogram.add(seconds);
        }
        let encoded = histogram.encode();
        let cumulative: Vec<u64> = encoded
            .get_bucket()
            .iter()
            .map(proto::Bucket::cumulative_count)
            .collect();
        assert_eq!(cumulative, [2, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4]);
        assert_eq!(encoded.get_sample_count(), 5);
        assert!((encoded.get_sample_sum() - 11.3011).abs() < 1e-9);
    }
}
