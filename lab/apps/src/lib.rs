//! Programs that pods of the lab run: BookInfo, echo servers, clients.
