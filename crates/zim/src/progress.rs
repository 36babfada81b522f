//! A progress bar on standard error; silent where that is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of so many bytes.
pub(crate) fn bar(total_bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(total_bytes);
    let template = "{bar:40} {percent:>3} %  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
