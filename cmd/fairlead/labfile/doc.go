// Package labfile reads the file of `fairlead up -f`, and says what is to be done
// so that a node has what the file says.
//
//	name: routers
//	networks:
//	  left: {subnet: 10.1.0.0/24}
//	containers:
//	  pc1:
//	    command: sleep infinity
//	    networks:
//	      left: {ip: 10.1.0.2}
//
// The grammar is a tree of values (value.go), one function for each kind of object
// (file.go): a value says how what stands there is read and how the JSON schema
// describes it, so the two cannot differ. The decoder (decode.go) walks the tree
// of YAML by it and takes down where everything was, and all that is wrong;
// check.go holds one part of the file against others, plan.go all of it against
// what a node has.
//
// It is pure: bytes in, a plan out. It opens no file and asks no node. A file is
// at most a megabyte, and its aliases stand for a bounded number of values.
//
// Values of this package belong to one goroutine at a time.
package labfile
