// The probe: runs in the container under test, prints facts as JSON lines; judges nothing.
//
//   probe ask NAME SNIPPET …   the facts of this process, then each shell snippet's output and code
//   probe facts                the facts alone
//   probe call NAME ARG…       one system call; prints "RESULT ERRNO". ARG: a number or s:TEXT
//   probe compat               a call of the 32-bit kind (x86); prints as above
//   probe signals              prints each signal it gets, by number, until it is killed
//   probe forks COUNT          starts children that wait; prints how many, and the errno at the end
//   probe eat MIB              touches so much memory, then waits for the end of input
//   probe write COUNT          writes so many bytes of a known pattern
//   probe busy                 prints a growing number without a pause

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

extern char **environ;

static void text(const char *bytes, size_t length) {
    putchar('"');
    for (size_t i = 0; i < length; i++) {
        unsigned char c = bytes[i];
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            printf("\\u%04x", c); // bytes, as Latin-1; the reader turns them back
        else
            putchar(c);
    }
    putchar('"');
}

static void key(const char *name) { printf(",\"%s\":", name); }

static void number(const char *name, long value) {
    key(name);
    printf("%ld", value);
}

static void string(const char *name, const char *value) {
    key(name);
    if (value)
        text(value, strlen(value));
    else
        printf("null");
}

static void list(const char *name, char **items) {
    key(name);
    putchar('[');
    for (int i = 0; items[i]; i++) {
        if (i)
            putchar(',');
        text(items[i], strlen(items[i]));
    }
    putchar(']');
}

static size_t slurp(int fd, char **bytes) {
    size_t size = 0, room = 1 << 16;
    ssize_t got;
    *bytes = malloc(room);
    while ((got = read(fd, *bytes + size, room - size)) > 0 || (got < 0 && errno == EINTR)) {
        size += got > 0 ? (size_t)got : 0;
        if (size == room)
            *bytes = realloc(*bytes, room *= 2);
    }
    return size;
}

static void file(const char *name, const char *path) {
    char *bytes;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    key(name);
    if (fd < 0) {
        printf("null");
        return;
    }
    text(bytes, slurp(fd, &bytes));
    free(bytes);
    close(fd);
}

static void links(const char *name, const char *path) {
    char target[4096];
    DIR *directory = opendir(path);
    struct dirent *entry;
    int more = 0;
    key(name);
    putchar('{');
    while (directory && (entry = readdir(directory))) {
        ssize_t length = readlinkat(dirfd(directory), entry->d_name, target, sizeof target);
        if (length < 0 || (path[strlen(path) - 1] == 'd' && atoi(entry->d_name) == dirfd(directory)))
            continue;
        printf("%s\"%s\":", more++ ? "," : "", entry->d_name);
        text(target, length);
    }
    putchar('}');
    if (directory)
        closedir(directory);
}

static void facts(char **argv) {
    struct utsname uts;
    struct winsize size = {0};
    struct sched_param param = {0};
    gid_t groups[256];
    char cwd[4096], affinity[512] = "";
    cpu_set_t cpus;
    mode_t mask = umask(0);
    int count = getgroups(256, groups);

    umask(mask);
    uname(&uts);
    printf("{\"name\":\"facts\"");
    list("args", argv);
    list("env", environ);
    string("cwd", getcwd(cwd, sizeof cwd));
    number("pid", getpid());
    number("ppid", getppid());
    number("sid", getsid(0));
    number("pgid", getpgrp());
    number("uid", getuid());
    number("euid", geteuid());
    number("gid", getgid());
    number("egid", getegid());
    key("groups");
    putchar('[');
    for (int i = 0; i < count; i++)
        printf("%s%u", i ? "," : "", groups[i]);
    putchar(']');
    number("umask", mask);
    string("hostname", uts.nodename);
    string("domainname", uts.domainname);
    string("machine", uts.machine);
    key("tty");
    printf("[%d,%d,%d]", isatty(0), isatty(1), isatty(2));
    ioctl(0, TIOCGWINSZ, &size);
    key("size");
    printf("[%d,%d]", size.ws_row, size.ws_col);
    int terminal = open("/dev/tty", O_RDWR | O_CLOEXEC);
    number("controlling", terminal >= 0);
    if (terminal >= 0)
        close(terminal);
    number("personality", personality(0xffffffff));
    number("policy", sched_getscheduler(0));
    sched_getparam(0, &param);
    number("priority", param.sched_priority);
    number("nice", getpriority(PRIO_PROCESS, 0));
    number("ioprio", syscall(SYS_ioprio_get, 1, 0));
    if (!sched_getaffinity(0, sizeof cpus, &cpus))
        for (int i = 0; i < 64; i++)
            if (CPU_ISSET(i, &cpus))
                sprintf(affinity + strlen(affinity), "%s%d", *affinity ? "," : "", i);
    string("affinity", affinity);
    links("fds", "/proc/self/fd");
    links("ns", "/proc/self/ns");
    file("status", "/proc/self/status");
    file("limits", "/proc/self/limits");
    file("mountinfo", "/proc/self/mountinfo");
    file("cgroup", "/proc/self/cgroup");
    file("uid_map", "/proc/self/uid_map");
    file("gid_map", "/proc/self/gid_map");
    file("oom_score_adj", "/proc/self/oom_score_adj");
    file("timens_offsets", "/proc/self/timens_offsets");
    printf("}\n");
    fflush(stdout);
}

static void ask(const char *name, const char *snippet) {
    int ends[2], status;
    char *bytes;
    if (pipe2(ends, O_CLOEXEC))
        exit(99);
    pid_t pid = fork();
    if (!pid) {
        int nothing = open("/dev/null", O_RDONLY);
        dup2(nothing, 0);
        dup2(ends[1], 1);
        dup2(ends[1], 2);
        execl("/bin/busybox", "sh", "-c", snippet, NULL);
        _exit(127);
    }
    close(ends[1]);
    size_t length = slurp(ends[0], &bytes);
    close(ends[0]);
    waitpid(pid, &status, 0);
    printf("{\"name\":\"%s\",\"out\":", name);
    text(bytes, length);
    printf(",\"code\":%d}\n", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    fflush(stdout);
    free(bytes);
}

static const struct {
    const char *name;
    long number;
} CALLS[] = {
    {"getppid", SYS_getppid},   {"getpgid", SYS_getpgid},         {"personality", SYS_personality},
    {"unshare", SYS_unshare},   {"keyctl", SYS_keyctl},           {"fchmodat", SYS_fchmodat},
    {"mkdirat", SYS_mkdirat},   {"sethostname", SYS_sethostname}, {"socket", SYS_socket},
    {"dup3", SYS_dup3},         {"lseek", SYS_lseek},             {"openat", SYS_openat},
    {"umount2", SYS_umount2},   {"setdomainname", SYS_setdomainname},
    {"setpriority", SYS_setpriority},
};

static int call(int count, char **argv) {
    long values[6] = {0};
    if (count < 1)
        return 2;
    for (int i = 1; i < count && i < 7; i++)
        values[i - 1] = strncmp(argv[i], "s:", 2) ? strtol(argv[i], NULL, 0) : (long)(argv[i] + 2);
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++)
        if (!strcmp(CALLS[i].name, argv[0])) {
            errno = 0;
            long result = syscall(CALLS[i].number, values[0], values[1], values[2], values[3],
                                  values[4], values[5]);
            printf("%ld %d\n", result, errno);
            return 0;
        }
    return 2;
}

static int compat(void) {
#ifdef __x86_64__
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(64) : "memory"); // getppid of i386
    printf("%d %d\n", result < 0 ? -1 : result, result < 0 ? -result : 0);
    return 0;
#else
    return 2;
#endif
}

static void signals(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        int signal = sigwaitinfo(&all, NULL);
        if (signal > 0 && signal != SIGCHLD) {
            printf("%d\n", signal);
            fflush(stdout);
        }
    }
}

static int forks(int count) {
    int made = 0;
    setpgid(0, 0); // what ends the children at last ends nobody else
    for (; made < count; made++) {
        pid_t pid = fork();
        if (pid < 0)
            break;
        if (!pid) {
            pause();
            _exit(0);
        }
    }
    printf("%d %d\n", made, made < count ? errno : 0);
    fflush(stdout);
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    return 0;
}

static int eat(long mib) {
    char byte, *memory = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 3;
    for (long i = 0; i < mib << 20; i += 4096)
        memory[i] = 1;
    printf("ate %ld\n", mib);
    fflush(stdout);
    return read(0, &byte, 1) < 0;
}

static int pattern(long count) {
    char line[64];
    for (int i = 0; i < 64; i++)
        line[i] = i == 63 ? '\n' : 'a' + i % 26;
    for (; count > 0; count -= 64)
        fwrite(line, 1, count < 64 ? count : 64, stdout);
    return 0;
}

static void busy(void) {
    for (long i = 0;; i++) {
        printf("%ld\n", i);
        fflush(stdout);
        usleep(10000);
    }
}

int main(int argc, char **argv) {
    const char *verb = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "ask")) {
        facts((char *[]){argv[0], argv[1], NULL});
        for (int i = 2; i + 1 < argc; i += 2)
            ask(argv[i], argv[i + 1]);
        return 0;
    }
    if (!strcmp(verb, "facts")) {
        facts(argv);
        return 0;
    }
    long value = argc > 2 ? strtol(argv[2], NULL, 0) : 0;
    if (!strcmp(verb, "call"))
        return call(argc - 2, argv + 2);
    if (!strcmp(verb, "compat"))
        return compat();
    if (!strcmp(verb, "signals"))
        signals();
    if (!strcmp(verb, "forks"))
        return forks(value);
    if (!strcmp(verb, "eat"))
        return eat(value);
    if (!strcmp(verb, "write"))
        return pattern(value);
    if (!strcmp(verb, "busy"))
        busy();
    return 2;
}
