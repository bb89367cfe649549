//! Scripts of sed and awk that do nothing but read and print.

/// Whether a sed script only selects, replaces and prints: addresses, and the commands
/// `p P d D q Q = n N h H g G x l F z s y` and groups. What reads, writes or executes
/// (`r R w W e`, and the flags `e w` of `s`), takes text up to the end of the line
/// (`a i c`), jumps or is not understood is not such a script. GNU sed 4.9.
pub(super) fn sed_only_prints(script: &str) -> bool {
    let mut rest = Rest(script);
    let mut open = 0_u32;
    loop {
        rest.skip(|c| c == ' ' || c == ';');
        if rest.0.is_empty() {
            return open == 0;
        }
        if rest.take('}') {
            match open.checked_sub(1) {
                Some(left) => open = left,
                None => return false,
            }
        } else {
            if !address(&mut rest) {
                return false;
            }
            rest.skip(|c| c == ' ');
            match rest.take('{') {
                true => {
                    open += 1;
                    continue;
                }
                false if !function(&mut rest) => return false,
                false => {}
            }
        }
        rest.skip(|c| c == ' ');
        if !(rest.0.is_empty() || rest.0.starts_with([';', '}'])) {
            return false;
        }
    }
}

/// `12`, `$`, `1~2`, `/re/I`, two of them, and `!`.
fn address(rest: &mut Rest<'_>) -> bool {
    match one_address(rest) {
        Some(true) => {
            rest.skip(|c| c == ' ');
            if rest.take(',') {
                rest.skip(|c| c == ' ' || c == '+' || c == '~');
                if one_address(rest) != Some(true) {
                    return false;
                }
            }
        }
        Some(false) => {}
        None => return false,
    }
    rest.skip(|c| c == ' ');
    rest.take('!');
    true
}

/// Whether there is an address; none if there is half of one.
fn one_address(rest: &mut Rest<'_>) -> Option<bool> {
    if rest.take('$') {
        return Some(true);
    }
    if rest.take('/') {
        let whole = rest.until('/');
        rest.take('I');
        return whole.then_some(true);
    }
    Some(rest.skip(|c| c.is_ascii_digit() || c == '~'))
}

fn function(rest: &mut Rest<'_>) -> bool {
    let Some(name) = rest.next() else {
        return false;
    };
    match name {
        'p' | 'P' | 'd' | 'D' | '=' | 'n' | 'N' | 'h' | 'H' | 'g' | 'G' | 'x' | 'F' | 'z' => true,
        'q' | 'Q' | 'l' => {
            rest.skip(|c| c == ' ' || c.is_ascii_digit());
            true
        }
        's' | 'y' => {
            let Some(delimiter) = rest.next().filter(|c| "/|,:#%+@!_".contains(*c)) else {
                return false;
            };
            if !(rest.until(delimiter) && rest.until(delimiter)) {
                return false;
            }
            if name == 's' {
                rest.skip(|c| "gpiI".contains(c) || c.is_ascii_digit());
            }
            true
        }
        _ => false,
    }
}

/// Whether an awk program only computes and prints to its own output: it holds no pipe,
/// redirection or indirect call, and neither `system` nor `getline`, not even in a text, nor
/// the names under which it finds its files (POSIX.1-2024; gawk 5.2 with its `|&` and `/inet`).
pub(super) fn awk_only_prints(script: &str) -> bool {
    // Statements stand in braces. Before the first of them there is a condition, and `<` and
    // `>` compare.
    let actions = script.find(['{', '}']).map_or("", |at| &script[at..]);
    !script.contains(['|', '@', '`'])
        && !actions.contains(['<', '>'])
        && !script.contains("system")
        && !script.contains("getline")
        && !script.contains("ARG")
        && !script.contains("SYMTAB")
}

/// Whether a jq program reads its operands and nothing else: no modules, which lie in folders that
/// it names itself (jq 1.8 manual, "Modules").
pub(super) fn jq_only_prints(script: &str) -> bool {
    !["import", "include", "modulemeta"]
        .iter()
        .any(|word| script.contains(word))
}

/// What is left of a script.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    fn next(&mut self) -> Option<char> {
        let mut chars = self.0.chars();
        let next = chars.next();
        self.0 = chars.as_str();
        next
    }

    fn take(&mut self, c: char) -> bool {
        let rest = self.0.strip_prefix(c);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Whether there was something to skip.
    fn skip(&mut self, skipped: impl Fn(char) -> bool) -> bool {
        let before = self.0.len();
        self.0 = self.0.trim_start_matches(skipped);
        self.0.len() < before
    }

    /// Goes past the next delimiter without a backslash. Seds differ about what a delimiter or
    /// a backslash is inside brackets, and about where brackets end, so only brackets that all
    /// of them read alike are gone past.
    fn until(&mut self, delimiter: char) -> bool {
        while let Some(c) = self.next() {
            match c {
                '\\' => drop(self.next()),
                c if c == delimiter => return true,
                '[' if !self.brackets(delimiter) => return false,
                _ => {}
            }
        }
        false
    }

    /// Goes past the rest of `[a-z]`, `[^[:space:]x]`.
    fn brackets(&mut self, delimiter: char) -> bool {
        self.take('^');
        let mut first = true;
        while let Some(c) = self.next() {
            match c {
                // First, it is a member: the brackets go on.
                ']' => return !first,
                '\\' => return false,
                c if c == delimiter => return false,
                '[' if !self.class() => return false,
                _ => first = false,
            }
        }
        false
    }

    /// Goes past the rest of `[:name:]`.
    fn class(&mut self) -> bool {
        let opened = self.take(':');
        let named = self.skip(|c| c.is_ascii_lowercase());
        opened && named && self.take(':') && self.take(']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_scripts_of_sed_are_known() {
        for script in [
            "",
            "p",
            "1p",
            "10,20p",
            "$p",
            "$!d",
            "/a/p",
            "/a/,/b/d",
            "/a/I,+3p",
            "1~2d",
            "s/a/b/",
            "s/a/b/g",
            "s|a/b|c|gI",
            "s/a/b/2p",
            "s,[0-9]*,x,",
            "s/[^[:space:]x]*/[y]/",
            "/[a-z]/d",
            "1d;$d",
            "1{p;q}",
            "/x/!{s/a/b/;p}",
            "y/abc/xyz/",
            "5q",
            "=",
            r"s/\/x/y\/z/",
            "  2 p ; 3p",
        ] {
            assert!(sed_only_prints(script), "{script}");
        }
    }

    #[test]
    fn scripts_of_sed_that_do_more_are_not() {
        for script in [
            "e",
            "1e id",
            "s/a/b/e",
            "s/a/id/ge",
            "w out",
            "1w out",
            "s/a/b/w out",
            "s/a/b/gw out",
            "W x",
            "r /etc/passwd",
            "R x",
            "a text",
            "i\\",
            "c x",
            "b end",
            "t",
            ":a",
            "s/a/b",
            "s/a",
            "/a",
            "1,p",
            "}",
            "{p",
            "1{e}",
            "p e",
            "pe",
            "p;e",
            "\\,a,e",
            "s\nx\ny\ne",
            "s/a/b/m",
            "s/[/]/x/e",
            // The `]` is a member of the brackets, so the flag is `e`.
            "s/[]/]/;s/e;/x/p",
            "s/[^]/]/;s/e;/x/p",
            "s/[[:x/]/;s/e;/x/p",
            "s/[[.].]/]/;s/e;/x/p",
            r"s/[\]/]/;s/e;/x/p",
            "v",
            "#n",
            "y/a/b/e",
            "1!e",
            "sa/b/c/ae",
            "s/a/b/;e",
            "M",
        ] {
            assert!(!sed_only_prints(script), "{script}");
        }
    }

    #[test]
    fn printing_scripts_of_awk_are_known() {
        for script in [
            "{print $1}",
            "NR==1{s+=$2} END{print s}",
            "NR>10 && NR<20",
            "$3 > 100 {print $1}",
        ] {
            assert!(awk_only_prints(script), "{script}");
        }
        for script in [
            r#"BEGIN{system("id")}"#,
            r#"{print|"sh"}"#,
            r#"{print>"x"}"#,
            r#"/}/{print > "x"}"#,
            r#"NR>1 {print > "x"}"#,
            r#"getline < "/etc/passwd""#,
            r#""id"|getline"#,
            r#"{"id"|getline x}"#,
            "@load \"x\"",
            "{f=\"system\"; @f(\"id\")}",
            "{while((getline l<\"/etc/passwd\")>0)print l}",
        ] {
            assert!(!awk_only_prints(script), "{script}");
        }
    }
}
