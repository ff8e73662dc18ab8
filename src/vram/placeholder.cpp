// Keeps the room buildable until its first source file; removed with it.
