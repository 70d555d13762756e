//! The node agent: wiring, workload sources, admin and the command line.
