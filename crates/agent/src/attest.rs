//! Node attestors: how the agent proves to the server which node it is on.
