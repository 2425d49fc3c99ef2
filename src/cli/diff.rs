//! What differs between two texts, line by line: the lines of the first that are gone with `-`, those of the second that
//! are new with `+`, and the lines around them.

/// Lines of a text that are compared; beyond this both are shown whole.
const LINES_MAX: usize = 1000;
/// Unchanged lines that are shown around a change.
const AROUND: usize = 2;

/// The difference, each line ending with a line break.
pub fn diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let mut lines = Vec::new();
    if old.len() > LINES_MAX || new.len() > LINES_MAX {
        lines.extend(old.iter().map(|line| ('-', *line)));
        lines.extend(new.iter().map(|line| ('+', *line)));
    } else {
        lines = align(&old, &new);
    }
    let is_near_change = |at: usize| {
        lines[at.saturating_sub(AROUND)..(at + AROUND + 1).min(lines.len())].iter().any(|line| line.0 != ' ')
    };
    let mut text = String::new();
    let mut left_out = false;
    for (at, (mark, line)) in lines.iter().enumerate() {
        if is_near_change(at) {
            text.extend([*mark, ' ']);
            text.push_str(line);
            text.push('\n');
        } else if !left_out {
            text.push_str("  …\n");
        }
        left_out = !is_near_change(at);
    }
    text
}

/// The longest common lines, by the table of their lengths.
fn align<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let mut common = vec![vec![0_u16; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::with_capacity(old.len() + new.len());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_shown_with_the_lines_around_it() {
        let old = "1\n2\n3\n4\n5\n6\n7";
        assert_eq!(diff(old, "1\n2\n3\n4\nfive\n6\n7"), "  …\n  3\n  4\n- 5\n+ five\n  6\n  7\n");
        assert_eq!(diff("a", "b"), "- a\n+ b\n");
        assert_eq!(diff("a", "a\nb"), "  a\n+ b\n");
    }
}
