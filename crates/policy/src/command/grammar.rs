//! The second reader: a grammar of the whole language, from which a few kinds of nodes are
//! taken. Every other kind is refused, and so is a text that needed any repair.

use protocol::script::{Redirection, Script, Simple, Step, Stream, Target, When};
use shuck_ast::{
    BinaryCommand, BinaryOp, Command, Redirect, RedirectKind, RedirectTarget, Stmt, StmtSeq,
    StmtTerminator, Word, WordPart, WordPartNode,
};
use shuck_parser::parser::{Parser, ShellDialect};

use super::plain::{self, add, place};

/// What a command does, or why that cannot be said.
pub(super) fn read(command: &str, workspace: &str) -> Result<Script, String> {
    let parsed = Parser::with_dialect(command, ShellDialect::Bash).parse();
    if !parsed.is_ok() || !parsed.diagnostics.is_empty() || parsed.terminal_error.is_some() {
        return Err("it is not clean in the shell's language".to_owned());
    }
    let mut reader = Reader {
        source: command,
        workspace,
        steps: Vec::new(),
    };
    reader.sequence(&parsed.file.body)?;
    Ok(Script {
        steps: reader.steps,
    })
}

struct Reader<'a> {
    source: &'a str,
    workspace: &'a str,
    steps: Vec<Step>,
}

impl Reader<'_> {
    fn sequence(&mut self, sequence: &StmtSeq) -> Result<(), String> {
        if !sequence.leading_comments.is_empty() || !sequence.trailing_comments.is_empty() {
            return refused("a comment");
        }
        sequence.stmts.iter().try_for_each(|statement| {
            match statement.terminator {
                None | Some(StmtTerminator::Semicolon) => {}
                Some(StmtTerminator::Background(_)) => return refused("a background job"),
            }
            self.list(statement, When::Always)
        })
    }

    /// Pipelines with `&&` and `||` between them, which bind to the left.
    fn list(&mut self, statement: &Stmt, when: When) -> Result<(), String> {
        let Command::Binary(BinaryCommand {
            left, op, right, ..
        }) = &statement.command
        else {
            return self.step(statement, when);
        };
        let then = match op {
            BinaryOp::And => When::Succeeded,
            BinaryOp::Or => When::Failed,
            BinaryOp::Pipe => return self.step(statement, when),
            BinaryOp::PipeAll => return refused("a pipe of both outputs"),
        };
        plain(statement)?;
        whole(statement)?;
        self.list(left, when)?;
        self.step(right, then)
    }

    fn step(&mut self, statement: &Stmt, when: When) -> Result<(), String> {
        let mut pipeline = Vec::new();
        self.pipeline(statement, &mut pipeline)?;
        self.steps.push(Step { when, pipeline });
        Ok(())
    }

    fn pipeline(&self, statement: &Stmt, pipeline: &mut Vec<Simple>) -> Result<(), String> {
        plain(statement)?;
        match &statement.command {
            Command::Binary(BinaryCommand {
                left,
                op: BinaryOp::Pipe,
                right,
                ..
            }) => {
                whole(statement)?;
                self.pipeline(left, pipeline)?;
                self.pipeline(right, pipeline)
            }
            Command::Simple(simple) if simple.assignments.is_empty() => {
                let mut program = Simple::plain(Vec::new());
                for word in std::iter::once(&simple.name).chain(&simple.args) {
                    add(&mut program, self.word(word)?)?;
                }
                for redirect in &statement.redirects {
                    self.redirect(redirect, &mut program.redirections)?;
                }
                pipeline.push(program);
                Ok(())
            }
            Command::Simple(_) => refused("an assignment"),
            Command::Binary(_)
            | Command::Builtin(_)
            | Command::Decl(_)
            | Command::Compound(_)
            | Command::Function(_)
            | Command::AnonymousFunction(_) => refused("more than programs and pipes"),
        }
    }

    fn redirect(&self, redirect: &Redirect, all: &mut Vec<Redirection>) -> Result<(), String> {
        let (None, RedirectTarget::Word(word)) = (&redirect.fd_var, &redirect.target) else {
            return refused("an odd redirection");
        };
        let file = || match self.word(word)? {
            plain::Word::Text(path) => place(&path, self.workspace),
            plain::Word::Pattern(_) => refused("a pattern where one file belongs"),
        };
        let join = |stream| Target::Join { stream };
        let (stream, to) = match (redirect.kind, redirect.fd) {
            (RedirectKind::Input, None | Some(0)) => {
                (Stream::Input, Target::Read { file: file()? })
            }
            (RedirectKind::Output, fd) => (output(fd)?, Target::Write { file: file()? }),
            (RedirectKind::Append, fd) => (output(fd)?, Target::Append { file: file()? }),
            (RedirectKind::DupOutput, fd) => match word.try_static_text(self.source).as_deref() {
                Some("1") => (output(fd)?, join(Stream::Output)),
                Some("2") => (output(fd)?, join(Stream::Error)),
                _ => return refused("an odd descriptor"),
            },
            (RedirectKind::OutputBoth, None) => {
                let to = Target::Write { file: file()? };
                let stream = Stream::Output;
                all.push(Redirection { stream, to });
                (Stream::Error, join(Stream::Output))
            }
            _ => return refused("an odd redirection"),
        };
        all.push(Redirection { stream, to });
        Ok(())
    }

    /// The grammar says where a word is and that nothing in it is expanded; what it is without
    /// its quotes says the other reader.
    fn word(&self, word: &Word) -> Result<plain::Word, String> {
        match word.parts.iter().all(|part| is_text(&part.kind)) {
            true => plain::one_word(word.span.slice(self.source)),
            false => refused("a word that is not plain text"),
        }
    }
}

fn is_text(part: &WordPart) -> bool {
    match part {
        WordPart::Literal(_) => true,
        WordPart::SingleQuoted { dollar, .. } => !dollar,
        WordPart::DoubleQuoted { parts, dollar } => {
            let literal = |part: &WordPartNode| matches!(part.kind, WordPart::Literal(_));
            !dollar && parts.iter().all(literal)
        }
        _ => false,
    }
}

fn output(descriptor: Option<i32>) -> Result<Stream, String> {
    match descriptor {
        None | Some(1) => Ok(Stream::Output),
        Some(2) => Ok(Stream::Error),
        Some(_) => refused("an odd descriptor"),
    }
}

/// Nothing is said about the statement beyond its command and its redirections.
fn plain(statement: &Stmt) -> Result<(), String> {
    match statement.negated
        || !statement.leading_comments.is_empty()
        || statement.inline_comment.is_some()
    {
        true => refused("a negation or a comment"),
        false => Ok(()),
    }
}

/// Redirections belong to a program, not to several.
fn whole(statement: &Stmt) -> Result<(), String> {
    match statement.redirects.is_empty() {
        true => Ok(()),
        false => refused("a redirection of several programs"),
    }
}

fn refused<T>(what: &str) -> Result<T, String> {
    Err(format!("the grammar finds {what} in it"))
}
