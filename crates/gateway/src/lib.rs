//! Who is this, what may they do: the gateway and the supervisor.
