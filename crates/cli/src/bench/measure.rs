//! Figures: how they are summed up, what they are held against, and how they are shown.

use std::time::Duration;

use serde::Serialize;

/// What was measured. The JSON form is stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Measure {
    /// What.
    pub(super) name: &'static str,
    /// In which unit the figures are.
    pub(super) unit: &'static str,
    /// The median.
    pub(super) p50: f64,
    /// Only one in a hundred is larger.
    pub(super) p99: f64,
    /// How many were measured.
    pub(super) n: usize,
    /// What it is compared with, in the same unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) baseline: Option<f64>,
    /// How many times the baseline it is; see the documentation of each figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ratio: Option<f64>,
}

/// Milliseconds that a turn without tools may add besides what the disk takes.
const ALLOWANCE: f64 = 3.0;

/// What a figure has to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    /// The ratio is at most this.
    Ratio(f64),
    /// The median is less than this.
    Median(f64),
    /// The median is less than the first, and only one in a hundred is not less than the second.
    Within(f64, f64),
    /// The ratio is at least this: how much slower another is, or how much of a rate is left.
    Slower(f64),
    /// The figure is at least this.
    AtLeast(f64),
    /// The ratio is at least this: how much of the baseline is left.
    Share(f64),
}

/// Whether a figure is as it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// It is.
    Yes,
    /// It is not, or cannot be told.
    No,
}

/// The targets. Memory has the same one if only the resident set could be read, which is
/// never smaller than the proportional one.
pub(super) fn target(name: &str) -> Option<Target> {
    match name {
        "turn_no_tools" => Some(Target::Ratio(5.0)),
        "up_to_ready" => Some(Target::Median(300.0)),
        "panic_to_gone" => Some(Target::Median(1000.0)),
        "idle_pss" | "idle_rss" => Some(Target::Median(35.0)),
        "box_cold" => Some(Target::Ratio(7.0)),
        "box_cold_p99" => Some(Target::Ratio(10.0)),
        "box_ready" => Some(Target::Ratio(3.0)),
        "box_change_large" | "undo_change_large" => Some(Target::Ratio(1.5)),
        // Microseconds.
        "decide_ordinary" | "decide_ls" | "decide_pipeline" | "decide_opaque" => {
            Some(Target::Within(200.0, 2000.0))
        }
        "first_token_added" => Some(Target::Median(1.0)),
        "model_stream" => Some(Target::Share(0.99)),
        "boxes_per_second" => Some(Target::AtLeast(400.0)),
        "tunnel" => Some(Target::Slower(0.8)),
        "tunnels_at_once" => Some(Target::AtLeast(200.0)),
        "tunnel_idle" => Some(Target::Median(64.0)),
        "docker_to_ready" => Some(Target::Slower(100.0)),
        "docker_to_cold" => Some(Target::Slower(40.0)),
        "crun_to_cold" | "bwrap_to_cold" => Some(Target::Slower(1.0)),
        _ => None,
    }
}

impl Measure {
    /// Sums up durations, in milliseconds.
    pub(super) fn of_times(name: &'static str, times: &[Duration]) -> Self {
        let times: Vec<f64> = times.iter().map(|time| ms(*time)).collect();
        Self::of(name, "ms", &times)
    }

    /// Sums up short durations, in microseconds.
    pub(super) fn of_short_times(name: &'static str, times: &[Duration]) -> Self {
        let times: Vec<f64> = times.iter().map(|time| ms(*time) * 1000.0).collect();
        Self::of(name, "us", &times)
    }

    /// Sums up figures. None is zero.
    pub(super) fn of(name: &'static str, unit: &'static str, figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            name,
            unit,
            p50: percentile(&sorted, 50),
            p99: percentile(&sorted, 99),
            n: sorted.len(),
            baseline: None,
            ratio: None,
        }
    }

    /// With what it is compared with, and how many times that it is.
    pub(super) fn against(mut self, baseline: f64) -> Self {
        self.baseline = Some(rounded(baseline));
        self.ratio = ratio(self.p50, baseline);
        self
    }

    /// Likewise, but what is allowed besides is taken off first.
    pub(super) fn against_disk(mut self, sync: f64) -> Self {
        self.baseline = Some(rounded(sync));
        self.ratio = ratio((self.p50 - ALLOWANCE).max(0.0), sync);
        self
    }

    /// Its slowest against those of another: of each, what only one in a hundred exceeds.
    pub(super) fn tail(&self, name: &'static str, other: &Self) -> Self {
        Self {
            name,
            p50: self.p99,
            baseline: Some(other.p99),
            ratio: ratio(self.p99, other.p99),
            ..self.clone()
        }
    }

    /// Whether it reaches its target; none if it has none.
    pub(super) fn reached(&self) -> Option<Reached> {
        let reached = match target(self.name)? {
            // A ratio that is missing is one to nothing.
            Target::Ratio(most) => self.ratio.is_some_and(|ratio| ratio <= most),
            Target::Median(limit) => self.n > 0 && self.p50 < limit,
            Target::Within(half, most) => self.n > 0 && self.p50 < half && self.p99 < most,
            Target::Slower(least) | Target::Share(least) => {
                self.ratio.is_some_and(|ratio| ratio >= least)
            }
            Target::AtLeast(least) => self.p50 >= least,
        };
        Some(if reached { Reached::Yes } else { Reached::No })
    }

    /// A row for people.
    pub(super) fn row(&self) -> [String; 8] {
        let shown = |figure: Option<f64>| figure.map(|figure| format!("{figure}"));
        [
            self.name.to_owned(),
            format!("{} {}", self.p50, self.unit),
            format!("{} {}", self.p99, self.unit),
            self.n.to_string(),
            shown(self.baseline).unwrap_or_default(),
            shown(self.ratio).unwrap_or_default(),
            match target(self.name) {
                None => String::new(),
                Some(Target::Ratio(most)) => format!("ratio <= {most}"),
                Some(Target::Median(limit)) => format!("p50 < {limit}"),
                Some(Target::Within(half, most)) => format!("p50 < {half}, p99 < {most}"),
                Some(Target::Slower(least) | Target::Share(least)) => format!("ratio >= {least}"),
                Some(Target::AtLeast(least)) => format!(">= {least}"),
            },
            match self.reached() {
                None => String::new(),
                Some(Reached::Yes) => "reached".to_owned(),
                Some(Reached::No) => "MISSED".to_owned(),
            },
        ]
    }
}

/// The head of the rows.
pub(super) const HEAD: [&str; 8] = [
    "FIGURE", "P50", "P99", "N", "BASELINE", "RATIO", "TARGET", "",
];

/// Whether no figure misses its target.
pub(super) fn all_reached(measures: &[Measure]) -> Reached {
    let missed = |measure: &Measure| measure.reached() == Some(Reached::No);
    match measures.iter().any(missed) {
        true => Reached::No,
        false => Reached::Yes,
    }
}

/// Milliseconds.
pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The smallest figure that so many percent do not exceed (nearest rank).
pub(super) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().map_or(0.0, rounded)
}

fn ratio(figure: f64, baseline: f64) -> Option<f64> {
    (baseline > 0.0).then(|| rounded(figure / baseline))
}

/// Three digits behind the point: finer than anything here can be measured.
fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(p50: f64, sync: f64) -> Measure {
        Measure::of("turn_no_tools", "ms", &[p50]).against_disk(sync)
    }

    #[test]
    fn percentiles_are_figures_that_were_measured() {
        let figures: Vec<f64> = (1..=200).map(f64::from).collect();
        let measure = Measure::of("x", "ms", &figures);
        assert_eq!((measure.p50, measure.p99, measure.n), (100.0, 198.0, 200));
        let three = Measure::of("x", "ms", &[3.0, 1.0, 2.0]);
        assert_eq!((three.p50, three.p99), (2.0, 3.0));
        assert_eq!(Measure::of("x", "ms", &[]).p50, 0.0);
    }

    #[test]
    fn a_turn_may_add_five_syncs_and_three_milliseconds() {
        assert_eq!(turn(8.0, 1.0).reached(), Some(Reached::Yes));
        assert_eq!(turn(8.1, 1.0).reached(), Some(Reached::No));
        assert_eq!(turn(2.0, 1.0).ratio, Some(0.0));
    }

    #[test]
    fn what_could_not_be_measured_is_not_reached() {
        assert_eq!(turn(1.0, 0.0).reached(), Some(Reached::No));
        let never = Measure::of("up_to_ready", "ms", &[]);
        assert_eq!(never.reached(), Some(Reached::No));
    }

    #[test]
    fn others_have_to_be_slower_and_boxes_many() {
        let docker = |p50| Measure::of("docker_to_ready", "ms", &[p50]).against(2.0);
        assert_eq!(docker(200.0).reached(), Some(Reached::Yes));
        assert_eq!(docker(199.0).reached(), Some(Reached::No));
        let many = |rate| Measure::of("boxes_per_second", "/s", &[rate]).reached();
        assert_eq!(many(400.0), Some(Reached::Yes));
        assert_eq!(many(399.0), Some(Reached::No));
        assert_eq!(
            Measure::of("boxes_per_second", "/s", &[]).reached(),
            Some(Reached::No)
        );
    }

    #[test]
    fn a_decision_is_quick_nearly_always() {
        let decided = |figures: &[f64]| Measure::of("decide_ls", "us", figures).reached();
        assert_eq!(decided(&[199.0, 199.0, 1999.0]), Some(Reached::Yes));
        assert_eq!(decided(&[199.0, 199.0, 2000.0]), Some(Reached::No));
        assert_eq!(decided(&[200.0]), Some(Reached::No));
        assert_eq!(decided(&[]), Some(Reached::No));
    }

    #[test]
    fn one_missed_target_is_enough() {
        let good = [turn(4.0, 1.0), Measure::of("idle_pss", "MiB", &[34.9])];
        assert_eq!(all_reached(&good), Reached::Yes);
        for bad in [
            turn(9.0, 1.0),
            Measure::of("idle_pss", "MiB", &[35.0]),
            Measure::of("idle_rss", "MiB", &[35.0]),
            Measure::of("up_to_ready", "ms", &[300.0]),
        ] {
            let measures = [good[0].clone(), good[1].clone(), bad];
            assert_eq!(all_reached(&measures), Reached::No, "{measures:?}");
        }
        let free = Measure::of("turn_one_tool", "ms", &[1e9]);
        assert_eq!(all_reached(&[free]), Reached::Yes);
    }

    #[test]
    fn the_json_form_has_the_stable_names() {
        let json = serde_json::to_value(turn(8.0, 1.0)).unwrap();
        let names: Vec<&str> = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut stable = ["name", "unit", "p50", "p99", "n", "baseline", "ratio"];
        stable.sort_unstable();
        let mut names = names;
        names.sort_unstable();
        assert_eq!(names, stable);
    }
}
