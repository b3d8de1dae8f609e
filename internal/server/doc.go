// Package server is the gRPC face of the service: it authenticates callers,
// lets them through the one door, translates requests into calls of package
// tenant, and translates the results back. It holds no rule of its own.
//
// # The door
//
// Every call passes the same interceptors in the same order: a panic becomes
// an error; a deadline is set; the method's access option is read from its
// descriptor, and a method without one is refused; the tenant is found from
// the request's parent or name; the caller is authenticated by that tenant's
// identity providers; rate limits; the role, where one is needed; the shape of
// the request. Only then does the method run. When it returns, the door checks
// that it authorized the caller and made its event durable, and withholds the
// answer if it did not: forgetting either cannot leak anything.
package server
