//! Ports on which something else than HTTP is spoken, so that a request to them is an attack on that.

/// What is spoken there, if it is known and is not HTTP for the public.
pub(crate) fn spoken(port: u16) -> Option<&'static str> {
    let found = PORTS.iter().find(|(ports, _)| ports.contains(&port));
    found.map(|(_, what)| *what)
}

/// The list of the Fetch Standard ("port blocking") with what it leaves out of today's services.
const PORTS: [(&[u16], &str); 12] = [
    (
        &[1, 7, 9, 11, 13, 15, 17, 19, 37, 69, 79],
        "an old test service",
    ),
    (
        &[
            20, 21, 115, 137, 138, 139, 445, 548, 873, 989, 990, 2049, 3260,
        ],
        "files",
    ),
    (
        &[
            22, 23, 512, 513, 514, 992, 3389, 5900, 5901, 5985, 5986, 6000, 6566, 10080,
        ],
        "a login",
    ),
    (
        &[25, 109, 110, 119, 143, 220, 465, 563, 587, 993, 995, 2525],
        "mail",
    ),
    (
        &[
            42, 43, 53, 77, 87, 95, 101, 102, 103, 104, 111, 113, 117, 123, 135, 161, 162, 179,
            526, 530, 531, 532, 540, 554, 556, 601, 853, 1719, 1720, 1723, 4045, 4190, 5353, 6679,
        ],
        "a service of the network",
    ),
    (&[88, 389, 464, 636, 3268, 3269], "a directory of accounts"),
    (&[427, 515, 631, 9100], "printers"),
    (
        &[
            1433, 1521, 2483, 3050, 3306, 5432, 5433, 6432, 9042, 26257, 27017, 27018, 28015, 50000,
        ],
        "a database",
    ),
    (
        &[
            6379, 6380, 11211, 5984, 7474, 7687, 8086, 9200, 9300, 16379, 26379,
        ],
        "a store of data",
    ),
    (
        &[
            1883, 2181, 4222, 4369, 5671, 5672, 6667, 6697, 5060, 5061, 8883, 9092, 15672, 61613,
            61616,
        ],
        "messages",
    ),
    (
        &[
            2375, 2376, 2377, 2379, 2380, 4243, 6443, 8500, 8600, 10250, 10255, 10256,
        ],
        "the control of containers",
    ),
    (
        &[873, 1099, 3632, 4444, 5005, 8009, 9000, 9001, 9229, 11434],
        "a program for this machine's own use",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_ports_of_the_web_are_free_and_others_say_what_they_are() {
        for port in [80, 443, 8080, 8443, 3000, 8000, 8888] {
            assert_eq!(spoken(port), None, "{port}");
        }
        for (port, what) in [
            (22, "a login"),
            (25, "mail"),
            (6379, "a store of data"),
            (2375, "the control of containers"),
        ] {
            assert_eq!(spoken(port), Some(what));
        }
    }
}
