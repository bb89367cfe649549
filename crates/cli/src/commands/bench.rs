//! `bulkhead bench`: what the line costs on this machine.

use std::path::PathBuf;

use clap::Args;

use crate::bench::{self, BoxExtent, Extent, Form, Targets, TunnelExtent, What};
use crate::fault::Fault;

/// What can be said with `bench`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of the command line, and `run` makes an enum of it"
)]
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
    /// Measure little: whether it works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Fail if a figure misses its target.
    #[arg(long)]
    check: bool,
    /// Measure boxes only, more of them, in large workspaces too, and against Docker, Podman, runc, crun and
    /// bubblewrap where they are there. Nothing is installed for that.
    #[arg(long)]
    boxes: bool,
    /// Measure the ways out of boxes only: what a tunnel carries, how many are served, what an idle one takes.
    #[arg(long, conflicts_with = "boxes")]
    tunnels: bool,
    /// The socket of the Docker engine to compare with, instead of its own default.
    #[arg(long, value_name = "PATH", requires = "boxes")]
    docker_socket: Option<PathBuf>,
    /// Measure in this folder, so on its disk, instead of TMPDIR or /var/tmp.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Fault> {
    let form = if arguments.json {
        Form::Json
    } else {
        Form::Text
    };
    let targets = if arguments.check {
        Targets::Demand
    } else {
        Targets::Show
    };
    let what = match (arguments.boxes, arguments.quick) {
        (_, quick) if arguments.tunnels => What::Tunnels(match quick {
            false => TunnelExtent::FULL,
            true => TunnelExtent::QUICK,
        }),
        (false, false) => What::Line(Extent::FULL),
        (false, true) => What::Line(Extent::QUICK),
        (true, quick) => What::Boxes {
            extent: match quick {
                false => BoxExtent::FULL,
                true => BoxExtent::QUICK,
            },
            docker: arguments.docker_socket.clone(),
        },
    };
    let folder = arguments.folder.as_deref().map(std::path::absolute);
    let folder = folder.transpose().map_err(Fault::io("find the folder"))?;
    bench::run(form, &what, targets, folder.as_deref())
}
