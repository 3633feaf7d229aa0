/* What no program of the distribution does in a test's container: sockets in the file system,
 * watches, and signals counted one by one. Every line is written at once. */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int fail(const char *what) { perror(what); return 1; }

static struct sockaddr_un address(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strncpy(name.sun_path, path, sizeof name.sun_path - 1);
    return name;
}

/* Serve one client at a path: what it sends comes back after "got ". */
static int serve(const char *path)
{
    struct sockaddr_un name = address(path);
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client;
    char text[256];
    ssize_t size;

    if (bind(server, (struct sockaddr *)&name, sizeof name) || listen(server, 1))
        return fail(path);
    dprintf(1, "ready\n");
    if ((client = accept(server, NULL, NULL)) < 0)
        return fail("accept");
    dprintf(client, "got ");
    while ((size = read(client, text, sizeof text)) > 0)
        if (write(client, text, size) != size)
            return fail("write");
    return 0;
}

static int dial(const char *path, const char *words)
{
    struct sockaddr_un name = address(path);
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    char text[256];
    ssize_t size;

    if (connect(client, (struct sockaddr *)&name, sizeof name))
        return fail(path);
    dprintf(client, "%s", words);
    shutdown(client, SHUT_WR);
    while ((size = read(client, text, sizeof text)) > 0)
        if (write(1, text, size) != size)
            return fail("write");
    return 0;
}

/* Answer datagrams to a port of UDP: each comes back after "got ". */
static int echo(int port)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(port)}, client;
    int server = socket(AF_INET, SOCK_DGRAM, 0);
    char text[256] = "got ";
    ssize_t size;

    if (bind(server, (struct sockaddr *)&name, sizeof name))
        return fail("bind");
    for (socklen_t length = sizeof client;; length = sizeof client) {
        size = recvfrom(server, text + 4, sizeof text - 4, 0, (struct sockaddr *)&client, &length);
        if (size < 0)
            return fail("recvfrom");
        sendto(server, text, size + 4, 0, (struct sockaddr *)&client, length);
    }
}

/* Print the name of each entry of a directory that appears or is moved there. */
static int watch(const char *path)
{
    char buffer[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    int watcher = inotify_init();
    ssize_t size;

    if (inotify_add_watch(watcher, path, IN_CREATE | IN_MOVED_TO) < 0)
        return fail(path);
    dprintf(1, "ready\n");
    while ((size = read(watcher, buffer, sizeof buffer)) > 0)
        for (char *at = buffer; at < buffer + size;) {
            struct inotify_event *event = (struct inotify_event *)at;
            dprintf(1, "saw %s\n", event->name);
            at += sizeof *event + event->len;
        }
    return fail("read");
}

/* Say each SIGTERM, and live on. */
static int count(void)
{
    sigset_t wanted;
    int number;

    sigemptyset(&wanted);
    sigaddset(&wanted, SIGTERM);
    sigprocmask(SIG_BLOCK, &wanted, NULL);
    dprintf(1, "ready\n");
    while (!sigwait(&wanted, &number))
        dprintf(1, "SIGTERM\n");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "serve"))
        return serve(argv[2]);
    if (argc == 4 && !strcmp(argv[1], "dial"))
        return dial(argv[2], argv[3]);
    if (argc == 3 && !strcmp(argv[1], "echo"))
        return echo(atoi(argv[2]));
    if (argc == 3 && !strcmp(argv[1], "watch"))
        return watch(argv[2]);
    if (argc == 2 && !strcmp(argv[1], "count"))
        return count();
    return 2;
}
