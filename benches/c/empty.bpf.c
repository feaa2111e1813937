// What does a test run cost by itself? A program that does nothing.
struct __sk_buff;

__attribute__((section("tc"), used)) int empty(struct __sk_buff *packet)
{
    return 0;
}

__attribute__((section("license"), used)) char LICENSE[] = "GPL";
