//! Command lines as people write them in script files.

/// Splits a line into words as a shell does, with both kinds of quotes and backslashes.
pub fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn lines_are_split_as_a_shell_does() {
        let split = words(r#"do -- sh -c 'echo "a  b"' "x\"y" '' z\ z"#).unwrap();
        assert_eq!(split, ["do", "--", "sh", "-c", r#"echo "a  b""#, "x\"y", "", "z z"]);
        assert_eq!(words("echo 'a"), None);
    }
}
