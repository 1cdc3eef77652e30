//! How much of its weight a server has that came, or came back, a moment ago.

use std::time::Duration;

use super::spread::SHARE_STEPS;

/// The share of its weight for a server in service for `age`, growing evenly over `window`; in
/// steps, so that control need not build a new group for a change too small to matter.
pub fn share(age: Duration, window: Duration) -> f32 {
    if age >= window {
        return 1.0;
    }
    let steps = (age.as_secs_f64() / window.as_secs_f64() * SHARE_STEPS as f64).floor();
    (steps.max(1.0) / SHARE_STEPS as f64) as f32
}
