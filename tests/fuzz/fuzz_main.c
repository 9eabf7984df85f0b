/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Runs a fuzz target over the files (or folders' files) given as arguments: replays a corpus without libFuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return 1;
    }
    static uint8_t buf[1 << 20];
    size_t n = fread(buf, 1, sizeof(buf), f);
    fclose(f);
    /* A copy of the exact size, so that a sanitizer sees reads past the end. */
    uint8_t *exact = malloc(n ? n : 1);
    if (!exact)
        return 1;
    for (size_t i = 0; i < n; i++)
        exact[i] = buf[i];
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    return 0;
}

static int replay_folder(const char *path, unsigned *count)
{
    DIR *d = opendir(path);
    if (!d)
        return 1;
    int bad = 0;
    for (struct dirent *e; (e = readdir(d));) {
        char name[4096];
        if (e->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
        bad |= replay(name);
        ++*count;
    }
    closedir(d);
    return bad;
}

int main(int argc, char **argv)
{
    int bad = 0;
    unsigned count = 0;
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (!stat(argv[i], &st) && S_ISDIR(st.st_mode)) {
            bad |= replay_folder(argv[i], &count);
        } else {
            bad |= replay(argv[i]);
            count++;
        }
    }
    printf("%u inputs replayed\n", count);
    return bad;
}
