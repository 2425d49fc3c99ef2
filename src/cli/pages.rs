//! Lists that go on, page by page, until they are as long as was asked for.

use super::{Error, terminal};

/// As many of a list as are asked for, where the list has them: a page may be empty and still not be the last. Gives where to go
/// on, too.
pub async fn filled<T>(
    limit: usize,
    cursor: Option<String>,
    mut page: impl AsyncFnMut(usize, Option<String>) -> Result<(Vec<T>, Option<String>), Error>,
) -> Result<(Vec<T>, Option<String>), Error> {
    // Through many that do not fit it may take a while.
    let spinner = terminal::progress(None);
    let (mut found, mut next) = page(limit, cursor).await?;
    while found.len() < limit && next.is_some() {
        spinner.set_message(format!("{} found", found.len()));
        spinner.tick();
        let (more, after) = page(limit - found.len(), next).await?;
        found.extend(more);
        next = after;
    }
    spinner.finish_and_clear();
    Ok((found, next))
}
