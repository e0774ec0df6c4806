/* Looks a name up as programs do, with the C library it is linked with. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	int reverse = argc == 3 && strcmp(argv[1], "-r") == 0;
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list;
	char text[1025];

	if (argc != 2 + reverse)
		return 1;
	if (reverse)
		hints.ai_flags = AI_NUMERICHOST;
	int err = getaddrinfo(argv[argc - 1], NULL, &hints, &list);
	if (err == 0 && reverse)
		err = getnameinfo(list->ai_addr, list->ai_addrlen, text, sizeof text, NULL, 0, NI_NAMEREQD);
	if (err != 0) {
		puts(gai_strerror(err));
		return 2;
	}
	if (reverse) {
		puts(text);
		return 0;
	}
	for (; list != NULL; list = list->ai_next) {
		struct sockaddr_in *a = (struct sockaddr_in *)list->ai_addr;
		puts(inet_ntop(AF_INET, &a->sin_addr, text, sizeof text));
	}
	return 0;
}
