"""People in what was recorded: bags, videos and folders of pictures, without ROS."""
