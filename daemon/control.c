/* control.c - short messages between keeper and worker.
 *
 * A message is one packet of text, a word and what belongs to it, so that versions of tgd that do
 * not know a word can skip it, and with it up to two descriptors.  What one of them sent before it
 * died can still be read.
 */
#include "daemon/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/fdpass.h"

int tgd_control_pair(int ret[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret) < 0
		       ? -errno
		       : 0;
}

int tgd_control_send(int socket, const char *word, const char *text, const int *fds, size_t n_fds)
{
	char packet[sizeof(((struct tgd_control_message *)NULL)->word) + TGD_CONTROL_TEXT];
	int n = snprintf(packet, sizeof(packet), "%s %.*s", word, TGD_CONTROL_TEXT - 1, text);
	ssize_t sent = tgp_send_fds(socket, packet, (size_t)n, fds, n_fds);

	return sent < 0 ? (int)sent : 0;
}

int tgd_control_receive(int socket, struct tgd_control_message *ret)
{
	char packet[sizeof(ret->word) + TGD_CONTROL_TEXT + 1];
	ssize_t n = tgp_recv_fds(socket, packet, sizeof(packet) - 1, ret->fds, TGP_FDS_MAX,
				 &ret->n_fds);
	size_t len;

	if (n <= 0)
		return n == -ECONNRESET ? 0 : (int)n;
	packet[n] = '\0';
	len = strcspn(packet, " ");
	snprintf(ret->word, sizeof(ret->word), "%.*s", (int)len, packet);
	snprintf(ret->text, sizeof(ret->text), "%s", packet[len] == ' ' ? packet + len + 1 : "");
	return 1;
}
