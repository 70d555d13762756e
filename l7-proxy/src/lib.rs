//! The shared proxy of the node: TCP, HTTP/1.1 and HTTP/2 for every enrolled pod.
