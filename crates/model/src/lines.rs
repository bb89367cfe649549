//! Lines out of pieces that are cut anywhere.

use crate::fault::ModelFault;

/// The longest line of a stream, in bytes. Ollama writes a whole tool call in one.
pub(crate) const MAX_LINE: usize = 1024 * 1024;

/// Gathers pieces and gives back whole lines, without their LF or CRLF.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    held: String,
}

impl Lines {
    /// Adds a piece and calls `each` for every line that is complete with it.
    pub(crate) fn push(
        &mut self,
        piece: &str,
        mut each: impl FnMut(&str) -> Result<(), ModelFault>,
    ) -> Result<(), ModelFault> {
        let mut rest = piece;
        while let Some((line, after)) = rest.split_once('\n') {
            rest = after;
            if self.held.is_empty() {
                each(checked(line)?)?;
            } else {
                self.hold(line)?;
                let whole = std::mem::take(&mut self.held);
                each(checked(&whole)?)?;
            }
        }
        self.hold(rest)
    }

    /// The last line, if the stream ended without an end of line.
    pub(crate) fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.held);
        (!rest.is_empty()).then_some(rest)
    }

    fn hold(&mut self, part: &str) -> Result<(), ModelFault> {
        if self.held.len() + part.len() > MAX_LINE {
            return Err(ModelFault::LineTooLong(MAX_LINE));
        }
        self.held.push_str(part);
        Ok(())
    }
}

fn checked(line: &str) -> Result<&str, ModelFault> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.len() > MAX_LINE {
        Err(ModelFault::LineTooLong(MAX_LINE))
    } else {
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&str]) -> Result<Vec<String>, ModelFault> {
        let (mut all, mut lines) = (Vec::new(), Lines::default());
        for piece in pieces {
            lines.push(piece, |line| {
                all.push(line.to_owned());
                Ok(())
            })?;
        }
        all.extend(lines.rest());
        Ok(all)
    }

    #[test]
    fn lines_are_the_same_wherever_the_pieces_are_cut() {
        let stream = "a\r\n\nbb\r\nc é d";
        for cut in (0..=stream.len()).filter(|cut| stream.is_char_boundary(*cut)) {
            let (left, right) = stream.split_at(cut);
            assert_eq!(
                lines(&[left, right]).unwrap(),
                ["a", "", "bb", "c é d"],
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_line_over_the_bound_is_a_fault_whether_it_ends_or_not() {
        let long = "x".repeat(MAX_LINE + 1);
        assert_eq!(lines(&[&long]), Err(ModelFault::LineTooLong(MAX_LINE)));
        assert_eq!(
            lines(&[&long[..9], &long[9..], "\n"]),
            Err(ModelFault::LineTooLong(MAX_LINE))
        );
        assert_eq!(
            lines(&[&format!("{long}\n")]),
            Err(ModelFault::LineTooLong(MAX_LINE))
        );
    }
}
