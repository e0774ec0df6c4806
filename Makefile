# The targets explain themselves: make help.
WANT     := $(shell sed -n 's/^go //p' go.mod)
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LINTER   := v2.15.0
LINT     := .cache/bin/golangci-lint-$(LINTER)
FUZZTIME ?= 30s
CORPUS   ?= .cache/fuzz
SOAK     ?= -for 10m
PKG      ?= ./...
PREFIX   ?= /usr/local
SHARE     = $(DESTDIR)$(PREFIX)/share
# The version comes from the line above, and git may distrust a checkout of another user.
# Without paths, what was compiled in one checkout serves another.
export GOFLAGS += -buildvcs=false -trimpath

check = have=$$(go env GOVERSION 2>/dev/null || GOTOOLCHAIN=local go version 2>/dev/null | cut -d' ' -f3); \
	printf '%s\n' 'go$(WANT)' "$$have" | sort -CV || { printf '%s\n' \
	"fairlead needs Go $(WANT) or newer; here is $${have:-none}. Debian 12 brings 1.19, so take the newest" \
	"tarball for your machine from https://go.dev/dl and then:" \
	"  mkdir -p ~/.local && tar -C ~/.local -xzf go*.linux-*.tar.gz && export PATH=~/.local/go/bin:\$$PATH" >&2; exit 1; }

help: ## list the targets
	@($(check)) || true
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: go ## build bin/fairlead, a static binary, and what its command bench starts
	CGO_ENABLED=0 go build -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/... ./test/world ./test/fuzz
	CGO_ENABLED=0 go build -ldflags '-X main.version=$(VERSION)' -o bin/fairlead-bench ./bench

install: build ## install below PREFIX=/usr/local (DESTDIR=): programs, manual, completions, units
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin bin/fairlead bin/fairlead-bench
	bin/fairlead man $(SHARE)/man
	install -d $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	bin/fairlead completion bash >$(SHARE)/bash-completion/completions/fairlead
	bin/fairlead completion zsh >$(SHARE)/zsh/site-functions/_fairlead
	bin/fairlead completion fish >$(SHARE)/fish/vendor_completions.d/fairlead.fish
	install -D -m 644 docs/lab.schema.json $(SHARE)/fairlead/lab.schema.json
	for manager in system user; do \
		install -d $(DESTDIR)$(PREFIX)/lib/systemd/$$manager && \
		for unit in fairlead.service fairlead-lab@.service; do \
			sed 's#/usr/local/bin/#$(PREFIX)/bin/#' docs/systemd/$$unit >$(DESTDIR)$(PREFIX)/lib/systemd/$$manager/$$unit || exit 1; \
		done || exit 1; \
	done

man: build ## write the manual pages into bin/man
	@rm -rf bin/man
	bin/fairlead man bin/man

demo: build ## show two containers talking, in ten seconds
	@docs/demo.sh bin/fairlead

test: build ## run all tests in a world of their own (PKG=./switch: only those; RACE=no, DEPS=no)
	@test/deps.sh || echo 'Going on without them.'
	@test/run.sh $(PKG)

plain: build ## run all scenarios, and more, by programs without what makes them fast
	@test/deps.sh || echo 'Going on without them.'
	@PLAIN=yes test/run.sh ./test

engines: build ## compare with real container engines, as root
	@test/deps.sh engines.txt
	@test/engines.sh

syscalls: build ## record the system calls of nodes in the scenarios, for the filter's list (ARGS='-run S05')
	@test/syscalls.sh $(ARGS)

fuzz: build ## fuzz every parser (FUZZTIME=30s each; goes on where it stopped; CORPUS=.cache/fuzz)
	@bin/fuzz -time $(FUZZTIME) -corpus $(CORPUS) -version $(VERSION) $(PKG)

soak: build ## do at random whatever can happen to a node, and judge (SOAK='-for 1h -seed 7')
	@CGO_ENABLED=0 go test -c -o .cache/soak ./test
	@cd test && FAIRLEAD_BIN=$(CURDIR)/bin/fairlead ../bin/world ../.cache/soak -test.run '^TestSoak$$' -test.timeout 0 -test.v $(SOAK)

bench: build ## measure beside the kernel bridge and other switches (ARGS=--help for more; DEPS=no)
	@test/deps.sh ../bench/packages.txt || echo 'Going on without them.'
	@bin/fairlead bench $(ARGS)

lint: go $(LINT) ## run the linters of .golangci.yml
	$(LINT) run

deps: go ## install the Debian packages the tests need, as root (DEPS=no: never)
	@test/deps.sh

clean: ## remove what was built
	rm -rf bin .cache

go:
	@$(check)

$(LINT): | go
	GOBIN=$(CURDIR)/.cache/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINTER)
	mv .cache/bin/golangci-lint $@

.PHONY: help build install man demo test plain engines syscalls fuzz soak bench lint deps clean go
