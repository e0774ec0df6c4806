# What strace -f prints of a node goes in; out comes the name of each system call
# it made once its filter was in force, once.
!on { on = /seccomp\(SECCOMP_SET_MODE_FILTER/; next }
match($0, /^[0-9]+ +[a-z0-9_]+\(/) {
	name = substr($0, 1, RLENGTH - 1)
	sub(/^[0-9]+ +/, "", name)
	if (!(name in seen)) {
		seen[name] = 1
		print name >>file
	}
}
