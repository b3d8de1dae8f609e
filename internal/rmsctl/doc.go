// Package rmsctl is the command line of the rights management service: the
// command tree, what it prints and how it exits. It is built on the public
// SDK and holds no rule of its own: every decision is the server's, every
// check of a document the SDK's.
//
// Three rules hold for all commands. Data goes to standard output, talk goes
// to standard error, so that output can be piped. Text that others wrote
// (titles, reasons, names of clients) never reaches the terminal with control
// characters in it. After a change, one line says what to do next or how to
// take it back.
package rmsctl
